"""common.session: what a peer does about each thing that may happen to its link, in each state."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.link import Link
from common.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    ArenaGone,
    Envelope,
    Message,
    ProcessId,
    RestartLink,
    Welcome,
)
from common.session import HELLO_TIMEOUT_NS, Command, LinkDown, LinkUp, Open, Session, State, WatchBroker

EPOCH = 3
BROKER = ProcessId(10, 100)
SUCCESSOR = ProcessId(11, 200)
NOW = 1_000_000
MESSAGE = ArenaGone("f")
OTHER = ArenaGone("g")


def envelope(
    sequence: int, *messages: Message, epoch: int = EPOCH, protocol: int = PROTOCOL_VERSION
) -> Envelope:
    return Envelope(protocol, epoch, sequence, list(messages))


def closed() -> Session:
    return Session("f1")


def greeting() -> Session:
    session = Session("f1")
    session.open(NOW)
    session.stamp([Acknowledge(0)])
    return session


def linked() -> Session:
    session = greeting()
    session.receive(envelope(0, Welcome(BROKER)), NOW)
    return session


def relinked() -> Session:
    """On its second link, to the successor of the first broker."""
    session = linked()
    session.broker_died(BROKER, NOW)
    session.stamp([Acknowledge(0)])
    session.receive(envelope(0, Welcome(SUCCESSOR), epoch=EPOCH + 1), NOW)
    return session


def died(process: ProcessId) -> Callable[[Session], list[Command]]:
    return lambda session: session.broker_died(process, NOW)


def ticked(after: int) -> Callable[[Session], list[Command]]:
    return lambda session: session.tick(NOW + after)


def received(one: Envelope) -> Callable[[Session], list[Command]]:
    return lambda session: session.receive(one, NOW)[1]


UP = [LinkUp(EPOCH), WatchBroker(BROKER)]
LATE = HELLO_TIMEOUT_NS

TRANSITIONS = [
    # state before, event, commands, state after
    (closed, lambda session: session.open(NOW), [Open("f1.1")], State.GREETING),
    (closed, ticked(LATE), [], State.CLOSED),
    (closed, died(BROKER), [], State.CLOSED),
    (greeting, received(envelope(0, Welcome(BROKER))), UP, State.LINKED),
    (greeting, received(envelope(0, Welcome(BROKER), MESSAGE)), UP, State.LINKED),
    (greeting, received(envelope(1, Welcome(BROKER))), [], State.GREETING),
    (greeting, received(envelope(0, MESSAGE)), [], State.GREETING),
    (greeting, received(envelope(0, MESSAGE, Welcome(BROKER))), [], State.GREETING),
    (greeting, received(envelope(0)), [], State.GREETING),
    (greeting, received(envelope(0, Welcome(BROKER), protocol=99)), [], State.GREETING),
    (greeting, received(envelope(0, RestartLink())), [], State.GREETING),
    (greeting, ticked(LATE - 1), [], State.GREETING),
    (greeting, ticked(LATE), [Open("f1.2")], State.GREETING),
    (greeting, died(BROKER), [], State.GREETING),
    (linked, received(envelope(1, MESSAGE)), [], State.LINKED),
    (linked, received(envelope(0, Welcome(BROKER))), [], State.LINKED),
    (linked, received(envelope(0, Welcome(SUCCESSOR), epoch=EPOCH + 1)), [], State.LINKED),
    (linked, received(envelope(1, MESSAGE, epoch=EPOCH - 1)), [], State.LINKED),
    (linked, received(envelope(2, MESSAGE)), [LinkDown(False), Open("f1.2")], State.GREETING),
    (linked, received(envelope(1, RestartLink())), [LinkDown(False), Open("f1.2")], State.GREETING),
    (linked, received(envelope(1, MESSAGE, RestartLink())), [LinkDown(False), Open("f1.2")], State.GREETING),
    (linked, received(envelope(0, RestartLink(), epoch=EPOCH - 1)), [], State.LINKED),
    (linked, died(BROKER), [LinkDown(True), Open("f1.2")], State.GREETING),
    (linked, died(SUCCESSOR), [], State.LINKED),
    (linked, died(ProcessId(BROKER.pid, BROKER.start_ticks + 1)), [], State.LINKED),
    (linked, ticked(100 * LATE), [], State.LINKED),
    (relinked, died(BROKER), [], State.LINKED),
    (relinked, died(SUCCESSOR), [LinkDown(True), Open("f1.3")], State.GREETING),
    (relinked, received(envelope(1, MESSAGE)), [], State.LINKED),
    (relinked, received(envelope(5, RestartLink())), [], State.LINKED),
]


@pytest.mark.parametrize(("before", "event", "commands", "after"), TRANSITIONS)
def test_transition(
    before: Callable[[], Session],
    event: Callable[[Session], list[Command]],
    commands: list[Command],
    after: State,
) -> None:
    session = before()
    assert event(session) == commands
    assert session.state is after
    assert (session.broker is None) == (after is not State.LINKED)


def test_messages_that_come_with_the_welcome_count() -> None:
    session = greeting()
    messages, commands = session.receive(envelope(0, Welcome(BROKER), MESSAGE, OTHER), NOW)
    assert messages == [MESSAGE, OTHER]
    assert commands == UP
    assert session.epoch == EPOCH


def test_only_the_next_envelope_of_the_epoch_counts() -> None:
    session = linked()
    assert session.receive(envelope(1, MESSAGE), NOW) == ([MESSAGE], [])
    assert session.receive(envelope(1, OTHER), NOW) == ([], [])
    assert session.receive(envelope(2, OTHER, epoch=EPOCH + 1), NOW) == ([], [])
    assert session.receive(envelope(2, OTHER), NOW) == ([OTHER], [])


def test_nothing_of_an_envelope_behind_a_gap_counts() -> None:
    session = linked()
    messages, _ = session.receive(envelope(2, MESSAGE), NOW)
    assert messages == []


def test_after_a_gap_the_old_link_says_nothing_more() -> None:
    session = linked()
    session.receive(envelope(2, MESSAGE), NOW)
    assert session.receive(envelope(1, MESSAGE), NOW) == ([], [])
    assert session.receive(envelope(3, MESSAGE), NOW) == ([], [])
    assert session.state is State.GREETING


def test_a_late_welcome_links_the_present_attempt() -> None:
    """A socket has one identity, so a Welcome on it, however late, was meant for it."""
    session = greeting()
    session.tick(NOW + LATE)
    assert session.receive(envelope(0, Welcome(BROKER)), NOW + 10 * LATE) == ([], UP)
    assert session.tick(NOW + 20 * LATE) == []


def test_the_hello_has_no_epoch_and_what_follows_has_the_brokers() -> None:
    session = Session("f1")
    session.open(NOW)
    hello = session.stamp([Acknowledge(0)])
    assert (hello.epoch, hello.sequence) == (0, 0)
    session.receive(envelope(0, Welcome(BROKER)), NOW)
    second = session.stamp([Acknowledge(1)])
    assert (second.epoch, second.sequence) == (EPOCH, 1)


def test_each_attempt_counts_from_the_start_under_a_new_identity() -> None:
    session = linked()
    session.stamp([Acknowledge(1)])
    opened = [command for command in session.broker_died(BROKER, NOW) if isinstance(command, Open)]
    assert opened == [Open("f1.2")]
    hello = session.stamp([Acknowledge(0)])
    assert (hello.epoch, hello.sequence) == (0, 0)
    assert session.epoch == 0


def test_greetings_are_repeated_until_one_is_answered() -> None:
    session = greeting()
    identities = []
    for attempt in range(1, 5):
        for command in session.tick(NOW + attempt * LATE):
            assert isinstance(command, Open)
            identities.append(command.identity)
    assert identities == ["f1.2", "f1.3", "f1.4", "f1.5"]


events = st.sampled_from(
    ["welcome", "next", "repeat", "gap", "restart", "foreign", "die", "tick", "stranger"]
)


@given(st.lists(events, max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_ups_and_downs_alternate_and_identities_are_never_reused(
    happenings: list[str],
) -> None:
    """A broker with a true Link against a session that meets everything in any order."""
    now, epoch, broker = NOW, EPOCH, BROKER
    session = Session("f1")
    commands = session.open(now)
    link = Link(epoch)
    accepted: list[Message] = []
    for happening in happenings:
        now += 1
        if happening == "welcome" and session.state is State.GREETING:
            link = Link(epoch)
            commands += session.receive(link.stamp([Welcome(broker)]), now)[1]
        elif happening == "next" and session.state is State.LINKED:
            messages, more = session.receive(link.stamp([MESSAGE]), now)
            assert (messages, more) == ([MESSAGE], [])
            accepted += messages
        elif happening == "repeat":
            assert session.receive(envelope(0, MESSAGE, epoch=epoch), now) == ([], [])
        elif happening == "gap" and session.state is State.LINKED:
            link.stamp([MESSAGE])
            commands += session.receive(link.stamp([MESSAGE]), now)[1]
        elif happening == "restart" and session.state is State.LINKED:
            commands += session.receive(link.stamp([RestartLink()]), now)[1]
        elif happening == "foreign":
            assert session.receive(envelope(1, MESSAGE, epoch=epoch - 1), now) == ([], [])
        elif happening == "die":
            commands += session.broker_died(broker, now)
            epoch, broker = epoch + 1, ProcessId(broker.pid + 1, 0)
        elif happening == "tick":
            now += LATE
            commands += session.tick(now)
        elif happening == "stranger":
            assert session.broker_died(ProcessId(1, 1), now) == []
        if session.state is State.LINKED and session.broker != broker:
            break
    changes = [command for command in commands if isinstance(command, (LinkUp, LinkDown))]
    assert all(isinstance(change, (LinkUp, LinkDown)[index % 2]) for index, change in enumerate(changes))
    identities = [command.identity for command in commands if isinstance(command, Open)]
    assert len(identities) == len(set(identities))
