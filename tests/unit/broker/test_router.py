"""broker.router: links by identity, many messages in one, and frames that keep their numbers."""

import logging
from collections import deque
from collections.abc import Iterator

import pytest

from broker.commands import Command, Reply, Send, WantedState
from broker.core import Core
from broker.outbox import Outbox
from broker.router import Router
from common.config import ModelConfig, ServerConfig
from common.link import Link, Verdict
from common.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    ArenaGone,
    Completed,
    Envelope,
    FrontendHello,
    Listening,
    Message,
    OutputResult,
    ProcessId,
    Refused,
    Released,
    RestartLink,
    ScaleQuery,
    ScaleReply,
    StatusQuery,
    StatusReply,
    Welcome,
    decode,
    encode,
)
from common.session import LinkDown, Open, Session, State

EPOCH = 4
NOW = 1_000_000_000
BROKER = ProcessId(1, 1)
HELLO = FrontendHello("f1", ProcessId(2, 2), "grpc", False)


class MemorySocket:
    """What came in and what went out; `full` are identities that take nothing."""

    def __init__(self) -> None:
        self.inbox: deque[list[bytes]] = deque()
        self.sent: list[tuple[bytes, Envelope, list[bytes]]] = []
        self.full: set[bytes] = set()

    def drain(self) -> Iterator[list[bytes]]:
        while self.inbox:
            yield self.inbox.popleft()

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        if identity in self.full:
            return False
        self.sent.append((identity, decode(frames[0]), frames[1:]))
        return True

    def take(self) -> list[tuple[bytes, Envelope, list[bytes]]]:
        sent, self.sent = self.sent, []
        return sent


class Harness:
    """A real core behind the router."""

    def __init__(self) -> None:
        self.socket = MemorySocket()
        self.router = Router(self.socket, EPOCH)
        config = ServerConfig((ModelConfig("m", "/m"),), "/run/test")
        self.core = Core(config, WantedState(epoch=EPOCH), BROKER, NOW)

    def receive(self, identity: bytes, envelope: Envelope, *frames: bytes) -> None:
        self.socket.inbox.append([identity, encode(envelope), *frames])
        self.router.drain(self.core, NOW)

    def greet(self, identity: bytes = b"f1.1", hello: Message = HELLO) -> Link:
        """A peer's end of a link that has been welcomed."""
        self.receive(identity, Envelope(PROTOCOL_VERSION, 0, 0, [hello]))
        self.flush()
        link = Link(EPOCH)
        link.stamp([hello])
        for _, envelope, _ in self.socket.take():
            assert link.judge(envelope) is Verdict.ACCEPT
        return link

    def flush(self) -> None:
        self.carry_out(self.core.flush(NOW))

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send):
                self.router.send(command)
            elif isinstance(command, Reply):
                self.router.reply(command)

    def send(self, *messages: tuple[bytes, Message]) -> None:
        """These, decided in one round of the loop."""
        out = Outbox(self.core.peers)
        for identity, message in messages:
            out.send(identity, message)
        self.carry_out(out.take())

    def answer(self, *answers: tuple[Completed, tuple[bytes, ...]]) -> None:
        """These, of which each brings its own frames, to f1 in one round of the loop."""
        out = Outbox(self.core.peers)
        for answer, frames in answers:
            out.answer(b"f1.1", answer, frames)
        self.carry_out(out.take())

    def refused(self) -> dict[str, int]:
        return self.core.peers.refused


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_a_hello_is_welcomed_first(harness: Harness) -> None:
    harness.receive(b"f1.1", Envelope(PROTOCOL_VERSION, 0, 0, [HELLO]))
    harness.flush()
    (identity, envelope, frames), *_ = harness.socket.take()
    assert (identity, envelope.epoch, envelope.sequence, frames) == (b"f1.1", EPOCH, 0, [])
    assert envelope.messages[0] == Welcome(BROKER)
    assert harness.core.peers.frontends["f1"].identity == b"f1.1"


def test_what_follows_the_hello_reaches_the_core_in_order(harness: Harness) -> None:
    link = harness.greet()
    harness.receive(b"f1.1", link.stamp([Listening(), Refused({"A": 1}), Refused({"A": 2})]))
    assert harness.core.peers.frontends["f1"].listening
    assert harness.refused() == {"A": 3}


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(PROTOCOL_VERSION, 0, 0, []),
        Envelope(PROTOCOL_VERSION, 0, 0, [Listening()]),
        Envelope(PROTOCOL_VERSION, 0, 0, [Listening(), HELLO]),
        Envelope(PROTOCOL_VERSION, 0, 1, [HELLO]),
        Envelope(PROTOCOL_VERSION, EPOCH - 1, 0, [HELLO]),
        Envelope(PROTOCOL_VERSION, EPOCH - 1, 7, [Listening()]),
        Envelope(PROTOCOL_VERSION + 1, 0, 0, [HELLO]),
    ],
)
def test_without_a_hello_nothing_counts(harness: Harness, envelope: Envelope) -> None:
    harness.receive(b"x", envelope)
    harness.flush()
    assert harness.core.peers.frontends == {}
    assert harness.socket.take() == []


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff" * 50])
def test_junk_is_logged_and_dropped(harness: Harness, caplog: pytest.LogCaptureFixture, junk: bytes) -> None:
    link = harness.greet()
    with caplog.at_level(logging.ERROR, "broker"):
        harness.socket.inbox.append([b"f1.1", junk])
        harness.receive(b"f1.1", link.stamp([Refused({"A": 1})]))
    assert "cannot be understood" in caplog.text
    assert harness.refused() == {"A": 1}


def test_another_protocol_version_is_named(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "broker"):
        harness.receive(b"x", Envelope(99, 0, 0, [HELLO]))
    assert f"protocol 99, not {PROTOCOL_VERSION}" in caplog.text


def test_repeats_do_not_count_twice(harness: Harness) -> None:
    link = harness.greet()
    envelope = link.stamp([Refused({"A": 1})])
    harness.receive(b"f1.1", envelope)
    harness.receive(b"f1.1", envelope)
    assert harness.refused() == {"A": 1}


def session_at(link_envelope: Envelope) -> Session:
    """A peer's session that has been welcomed and now receives the envelope."""
    session = Session("f1")
    session.open(NOW)
    session.receive(Envelope(PROTOCOL_VERSION, EPOCH, 0, [Welcome(BROKER)]), NOW)
    assert session.state is State.LINKED
    _, commands = session.receive(link_envelope, NOW)
    assert commands == [LinkDown(broker_died=False), Open("f1.2")]
    return session


def test_after_a_gap_the_peer_is_to_greet_anew_and_is_not_heard_before(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    link = harness.greet()
    link.stamp([Refused({"lost": 1})])
    with caplog.at_level(logging.WARNING, "broker"):
        harness.receive(b"f1.1", link.stamp([Refused({"next": 1})]))
        harness.receive(b"f1.1", link.stamp([Refused({"after": 1})]))
    assert "f1.1 was lost" in caplog.text
    assert harness.refused() == {}
    restart = harness.socket.take()[0]
    assert restart[0] == b"f1.1"
    assert restart[1].messages == [RestartLink()]
    session_at(Envelope(PROTOCOL_VERSION, EPOCH, 1, restart[1].messages))
    again = harness.greet(b"f1.2")
    harness.receive(b"f1.2", again.stamp([Refused({"new": 1})]))
    assert harness.refused() == {"new": 1}


def test_a_peer_whose_link_was_dropped_learns_it_when_it_speaks(harness: Harness) -> None:
    """Its pipe was full for a moment: nothing more will be sent on the link, so no gap would ever show it."""
    link = harness.greet()
    harness.socket.full.add(b"f1.1")
    harness.send((b"f1.1", Released(1)))
    harness.socket.full.clear()
    harness.send((b"f1.1", Released(2)))
    assert harness.socket.take() == [], "the link is dropped: number 2 would come without number 1"
    harness.receive(b"f1.1", link.stamp([Refused({"A": 1})]))
    assert harness.refused() == {}
    ((identity, envelope, _),) = harness.socket.take()
    assert identity == b"f1.1"
    session_at(envelope)


def test_messages_of_one_round_to_one_peer_are_one(harness: Harness) -> None:
    harness.greet(b"f1.1")
    harness.greet(b"f2.1", FrontendHello("f2", ProcessId(3, 3), "rest", False))
    harness.send(
        (b"f1.1", Released(1)),
        (b"f2.1", Released(2)),
        (b"f1.1", ArenaGone("x")),
        (b"nobody", Released(9)),
        (b"f1.1", Released(3)),
    )
    sent = harness.socket.take()
    assert [(identity, envelope.messages) for identity, envelope, _ in sent] == [
        (b"f1.1", [Released(1), ArenaGone("x"), Released(3)]),
        (b"f2.1", [Released(2)]),
    ]


def test_sequences_count_up_without_holes(harness: Harness) -> None:
    link = harness.greet()
    for number in range(3):
        harness.send((b"f1.1", Released(number)))
    sent = harness.socket.take()
    assert [envelope.sequence for _, envelope, _ in sent] == [sent[0][1].sequence + step for step in range(3)]
    assert link.stamp([]).sequence == 1


def test_frames_of_several_answers_get_new_numbers(harness: Harness) -> None:
    """A worker numbers the frames of its message; those of one answer go on in another message."""
    harness.greet()
    from_one = (b"one-1", b"one-2", b"one-3")
    from_two = (b"two-1",)
    first = Completed(1, (OutputResult((1,), 3), OutputResult((2,)), OutputResult((3,), 1)))
    second = Completed(2, (OutputResult((4,), 1),))
    harness.answer((first, from_one), (Completed(7), ()), (second, from_two))
    ((_, envelope, frames),) = harness.socket.take()
    assert frames == [b"one-3", b"one-1", b"two-1"]
    answer_one, without, answer_two = envelope.messages
    assert isinstance(answer_one, Completed)
    assert isinstance(answer_two, Completed)
    assert without == Completed(7)
    # Frame 0 is the envelope.
    whole = [b"envelope", *frames]
    assert [whole[one.frame] if one.frame > 0 else None for one in answer_one.outputs] == [
        b"one-3",
        None,
        b"one-1",
    ]
    assert whole[answer_two.outputs[0].frame] == b"two-1"


def test_a_frame_that_is_not_there_costs_one_request(harness: Harness) -> None:
    harness.greet()
    wrong = Completed(1, (OutputResult((2,), 3),))
    right = Completed(2, (OutputResult((1,), 1),))
    harness.answer((wrong, (b"a",)), (right, (b"b",)))
    ((_, envelope, frames),) = harness.socket.take()
    failed, answered = envelope.messages
    assert isinstance(failed, Completed)
    assert failed.error is not None
    assert answered == Completed(2, (OutputResult((1,), 1),))
    assert frames == [b"b"]


def test_control_questions_need_no_link(harness: Harness) -> None:
    harness.receive(b"status-1", Envelope(PROTOCOL_VERSION, 0, 0, [StatusQuery()]))
    harness.receive(b"scale-1", Envelope(PROTOCOL_VERSION, 0, 0, [ScaleQuery("GPU", 2)]))
    harness.flush()
    sent = {identity: envelope for identity, envelope, _ in harness.socket.take()}
    assert set(sent) == {b"status-1", b"scale-1"}
    for envelope in sent.values():
        assert (envelope.epoch, envelope.sequence) == (0, 0)
    (status,) = sent[b"status-1"].messages
    assert isinstance(status, StatusReply)
    (scale,) = sent[b"scale-1"].messages
    assert isinstance(scale, ScaleReply)
    assert "GPU" in scale.error


def test_acknowledgements_are_the_senders(harness: Harness) -> None:
    link = harness.greet()
    other = harness.greet(b"f2.1", FrontendHello("f2", ProcessId(3, 3), "rest", False))
    harness.receive(b"f2.1", other.stamp([Acknowledge(77)]))
    assert harness.core.peers.frontends["f2"].acknowledged == 77
    assert harness.core.peers.frontends["f1"].acknowledged == 0
    harness.receive(b"f1.1", link.stamp([Acknowledge(78)]))
    assert harness.core.peers.acknowledged(100) == 77
