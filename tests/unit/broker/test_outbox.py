"""broker.outbox: messages come last, and those of one peer together."""

from broker.commands import KillProcess, Reply, Say, Send
from broker.outbox import INFO, Outbox
from broker.peers import Frontend, Peers
from common.messages import ArenaGone, Completed, OutputResult, ProcessId, Released, ScaleReply


def outbox() -> Outbox:
    peers = Peers()
    peers.add_frontend(Frontend("f1", b"f1.1", ProcessId(1, 1), "grpc", listening=True))
    return Outbox(peers)


def test_what_is_said_follows_what_is_done() -> None:
    """A message may tell of what is written down by a command that was decided after it."""
    out = outbox()
    out.send(b"a", Released(1))
    out.put(KillProcess(ProcessId(2, 2)))
    out.send(b"b", Released(2))
    out.reply(b"c", ScaleReply())
    out.say(INFO, "text")
    out.send(b"a", ArenaGone("x"))
    assert out.take() == [
        KillProcess(ProcessId(2, 2)),
        Reply(b"c", ScaleReply()),
        Say(INFO, "text"),
        Send(b"a", [Released(1), ArenaGone("x")], []),
        Send(b"b", [Released(2)], []),
    ]


def test_what_was_taken_does_not_come_again() -> None:
    out = outbox()
    assert not out
    out.send(b"a", Released(1))
    assert out
    first = out.take()
    assert not out
    out.send(b"a", Released(2))
    assert first == [Send(b"a", [Released(1)], [])]
    assert out.take() == [Send(b"a", [Released(2)], [])]
    assert out.take() == []


def test_a_frontend_that_is_not_linked_is_told_nothing() -> None:
    out = outbox()
    out.release("f1", 7)
    out.release("f2", 8)
    assert out.take() == [Send(b"f1.1", [Released(7)], [])]


def test_an_answer_with_frames_may_follow_one_without() -> None:
    out = outbox()
    plain = Completed(1, (OutputResult((2,)),))
    out.answer(b"f1.1", plain, ())
    out.answer(b"f1.1", Completed(2, (OutputResult((1,), 2),)), (b"unnamed", b"named"))
    assert out.take() == [
        Send(b"f1.1", [plain, Completed(2, (OutputResult((1,), 1),))], [b"named"]),
    ]
