"""frontends.broker_client: every request is answered once, and a block is free only when nothing can write to it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from common.config import ModelConfig
from common.errors import (
    Code,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    WireError,
)
from common.messages import (
    Acknowledge,
    Cancel,
    Completed,
    FrontendHello,
    Leaving,
    Listening,
    OutputResult,
    ProcessId,
    Reconfigure,
    Reconfigured,
    Refused,
    Released,
    RestartLink,
    Stale,
    Submit,
    Timing,
    VersionId,
)
from common.process import this_process
from frontends.broker_client import _TICK_S
from frontends.interface import Reconfiguration
from frontends.memory import Block
from frontends.reconfigurations import MAX_RECONFIGURATIONS
from frontends.requests import Answer, StaleVersionError
from tests.unit.frontends.scripted_broker import FIRST, Stage, catalogue, on_stage, status

FAR = 1 << 62
GONE = ProcessId(this_process().pid, 1)


def due_in(stage: Stage) -> float:
    """Seconds until the client looks by itself."""
    timer = stage.client._timer
    assert timer is not None
    assert not timer.cancelled()
    return timer.when() - asyncio.get_running_loop().time()


def block_of(stage: Stage) -> Block:
    block = stage.memory.allocate(64)
    assert block is not None
    return block


def submit_of(stage: Stage, deadline: int = FAR) -> Submit:
    return Submit(stage.client.ledger.next_id(), VersionId("m", 1), 1, 0, (), (), deadline)


def begin(stage: Stage, deadline: int = FAR) -> asyncio.Task[Answer]:
    """A request on its way, its block lent."""
    return asyncio.create_task(stage.client.run(submit_of(stage, deadline), block_of(stage)))


def timers(stage: Stage) -> int:
    """Requests that are near their deadline, or past it."""
    return sum(request.timer is not None for request in stage.client.ledger.entries.values())


def soon() -> int:
    return time.monotonic_ns() + 20_000_000


def broker_ends(stage: Stage) -> None:
    """What the loop does when the broker's pidfd is readable; that process is this one, which lives."""
    stage.client._on_death()


# ---- greeting


@on_stage
async def test_the_hello_says_who_it_is(stage: Stage) -> None:
    stage.client.start()
    assert not stage.client.linked
    hello = await stage.broker.greet()
    assert hello == FrontendHello("f1", this_process(), "grpc", False)
    await stage.until(lambda: stage.client.linked)


@on_stage
async def test_a_client_rests_only_while_it_is_linked_and_nothing_is_due(stage: Stage) -> None:
    await stage.link()
    await stage.until(lambda: due_in(stage) > _TICK_S)
    task = begin(stage)
    await asyncio.sleep(0)
    assert due_in(stage) <= _TICK_S, "an answer is due"
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id, ()))
    await task
    await stage.until(lambda: due_in(stage) > _TICK_S)
    broker_ends(stage)
    assert due_in(stage) <= _TICK_S, "a Hello without an answer is to be said again"


@on_stage
async def test_a_catalogue_is_acknowledged(stage: Stage) -> None:
    await stage.link()
    assert await stage.broker.next(Acknowledge) == Acknowledge(1)
    stage.broker.say(catalogue(5, status(2)))
    assert await stage.broker.next(Acknowledge) == Acknowledge(5)
    assert stage.client.catalogue is not None
    assert stage.client.catalogue.generation == 5


@on_stage
async def test_submits_of_one_round_come_before_the_acknowledgement_of_the_next_catalogue(
    stage: Stage,
) -> None:
    """Else the broker would take the version out of dispatch while requests for it are on their way."""
    await stage.link()
    await stage.broker.next(Acknowledge)
    task = begin(stage)
    await asyncio.sleep(0)
    stage.client._take_catalogue(catalogue(2, status(2)))
    await stage.broker.next(Acknowledge)
    assert [type(message) for message in stage.broker.envelopes[-1].messages] == [Submit, Acknowledge]
    task.cancel()


@on_stage
async def test_listening_is_said_at_once_and_on_every_later_link(stage: Stage) -> None:
    await stage.link()
    stage.client.announce_listening()
    await stage.broker.next(Listening)
    broker_ends(stage)
    hello = await stage.broker.greet(FIRST)
    assert hello.listening


@on_stage
async def test_listening_between_hello_and_welcome_is_not_lost(stage: Stage) -> None:
    stage.client.start()
    stage.client.announce_listening()
    hello = await stage.broker.greet(FIRST)
    if not hello.listening:
        await stage.broker.next(Listening)


@on_stage
async def test_leaving_is_said(stage: Stage) -> None:
    await stage.link()
    stage.client.announce_leaving()
    await stage.broker.next(Leaving)


@on_stage
async def test_a_silent_broker_is_greeted_again_on_a_new_link(stage: Stage) -> None:
    stage.client.start()
    await stage.broker.next(FrontendHello)
    stage.greet_again()
    again = await stage.broker.greet(FIRST)
    assert again.name == "f1"
    await stage.until(lambda: stage.client.linked)


@on_stage
async def test_refusals_are_reported(stage: Stage) -> None:
    await stage.link()
    stage.admission.draining = True
    for _ in range(2):
        with pytest.raises(Exception, match="shutting down"):
            stage.admission.check(0)
    assert await stage.broker.next(Refused) == Refused({"UNAVAILABLE": 2})
    assert stage.admission.refused() == {}


# ---- answers


@on_stage
async def test_an_answer_gives_the_block_to_the_waiter(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id, (OutputResult((1, 2), 1),), None, Timing(3, 4)), frames=(b"frame",))
    answer = await task
    assert answer == Answer((OutputResult((1, 2), 1),), (b"frame",), Timing(3, 4))
    assert stage.memory.used == 64, "the waiter's, to be freed by it"
    assert len(stage.client.ledger) == 0


@on_stage
async def test_many_answers_in_any_order(stage: Stage) -> None:
    await stage.link()
    tasks = [begin(stage) for _ in range(50)]
    submits = [await stage.broker.next(Submit) for _ in tasks]
    for number, submit in enumerate(reversed(submits)):
        stage.broker.say(Completed(submit.id, (), None, Timing(submit.id, number)))
    answers = await asyncio.gather(*tasks)
    assert [answer.timing.queued for answer in answers] == [submit.id for submit in submits]


@on_stage
async def test_requests_of_one_round_travel_as_one_message(stage: Stage) -> None:
    await stage.link()
    await stage.broker.next(Acknowledge)
    tasks = [begin(stage) for _ in range(20)]
    for _ in tasks:
        await stage.broker.next(Submit)
    assert len(stage.broker.envelopes[-1].messages) == 20
    for task in tasks:
        task.cancel()


@on_stage
async def test_an_error_frees_the_block(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id, (), WireError(Code.NOT_FOUND, "gone")))
    with pytest.raises(NotFoundError, match="gone"):
        await task
    assert stage.memory.used == 0


@on_stage
async def test_stale_gives_the_block_back_and_says_what_to_wait_for(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.broker.say(Stale(submit.id, 9))
    with pytest.raises(StaleVersionError) as caught:
        await task
    assert caught.value.generation == 9
    assert stage.memory.used == 64, "the waiter's, to be freed by it"
    assert len(stage.client.ledger) == 0


@on_stage
async def test_answers_to_unknown_requests_are_counted_and_harm_nothing(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.broker.say(
        Completed(999), Completed(998, (), WireError(Code.INTERNAL, "x")), Stale(997, 1), Released(996)
    )
    stage.broker.say(Completed(submit.id), Completed(submit.id))
    await task
    assert stage.client.unknown_answers == 4
    assert stage.memory.used == 64


@on_stage
async def test_more_messages_than_one_drain_takes_are_all_read(stage: Stage) -> None:
    """ZeroMQ's descriptor tells of them once."""
    await stage.link()
    assert stage.client._timer is not None
    stage.client._timer.cancel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.transport.MAX_DRAIN", 1)
        tasks = [begin(stage) for _ in range(20)]
        for _ in tasks:
            submit = await stage.broker.next(Submit)
            stage.broker.say(Completed(submit.id))
        await asyncio.gather(*tasks)


# ---- giving up


@on_stage
async def test_the_deadline_is_the_frontends_own_timer(stage: Stage) -> None:
    await stage.link()
    started = time.monotonic_ns()
    deadline = soon()
    with pytest.raises(DeadlineExceededError):
        await begin(stage, deadline)
    assert time.monotonic_ns() >= deadline > started


@on_stage
async def test_a_deadline_that_is_far_away_has_a_timer_when_it_is_near(stage: Stage) -> None:
    await stage.link()
    deadline = time.monotonic_ns() + 600_000_000
    near, far, farther = begin(stage, soon()), begin(stage, deadline), begin(stage)
    await asyncio.sleep(0)
    assert timers(stage) == 1
    with pytest.raises(DeadlineExceededError):
        await far
    assert time.monotonic_ns() >= deadline
    assert near.done()
    assert isinstance(near.exception(), DeadlineExceededError)
    assert not farther.done()
    assert timers(stage) == 2, "of those two, which are the broker's still"
    farther.cancel()


@on_stage
async def test_after_the_deadline_the_block_stays_lent_until_it_is_released(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.expire(submit)
    with pytest.raises(DeadlineExceededError):
        await task
    assert await stage.broker.next(Cancel) == Cancel(submit.id)
    assert stage.memory.used == 64
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)
    assert stage.client.unknown_answers == 0


@pytest.mark.parametrize("late", [Completed(1), Completed(1, (), WireError(Code.INTERNAL, "x")), Stale(1, 1)])
def test_a_late_answer_frees_the_block_as_well(tmp_path: Path, late: Completed | Stale) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        task = begin(stage)
        submit = await stage.broker.next(Submit)
        assert submit.id == 1
        stage.expire(submit)
        with pytest.raises(DeadlineExceededError):
            await task
        stage.broker.say(late)
        await stage.until(lambda: stage.memory.used == 0)
        assert len(stage.client.ledger) == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_a_cancelled_request_is_cancelled_at_the_broker(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stage.broker.next(Cancel) == Cancel(submit.id)
    assert stage.memory.used == 64
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


@on_stage
async def test_a_request_that_no_broker_has_seen_is_free_at_once(stage: Stage) -> None:
    stage.client.start()
    task = begin(stage, soon())
    with pytest.raises(DeadlineExceededError):
        await task
    assert stage.memory.used == 0
    other = begin(stage)
    await asyncio.sleep(0)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other
    assert stage.memory.used == 0


@on_stage
async def test_a_request_that_is_given_up_as_the_link_comes_is_not_sent(stage: Stage) -> None:
    """Its block is free, so a worker must not hear of it."""
    stage.client.start()
    task = begin(stage)
    hello = asyncio.create_task(stage.broker.greet(FIRST))
    await hello
    dealer = stage.client._link.dealer
    assert dealer is not None
    stage.client.loop.remove_reader(dealer.descriptor)
    await stage.until(dealer.has_input)
    task.cancel()
    stage.client._on_input()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.memory.used == 0
    await stage.broker.next(Acknowledge)
    stage.client._post(Listening())
    await stage.broker.next(Listening)
    assert not any(isinstance(message, Submit) for message in stage.broker.pending())


@pytest.mark.parametrize("last", [Completed(1), Stale(1, 9)])
def test_cancelled_in_the_round_of_its_answer_the_block_is_free(
    tmp_path: Path, last: Completed | Stale
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        task = begin(stage)
        assert (await stage.broker.next(Submit)).id == 1
        stage.client.receive(last, ())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.memory.used == 0
        assert len(stage.client.ledger) == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_cancelled_in_the_round_of_its_refusal_the_block_is_freed_once(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.client.receive(Completed(submit.id, (), WireError(Code.INTERNAL, "x")), ())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.memory.used == 0


@on_stage
async def test_a_deadline_in_the_past_is_over_at_once(stage: Stage) -> None:
    await stage.link()
    with pytest.raises(DeadlineExceededError):
        await begin(stage, time.monotonic_ns() - 10**12)


# ---- the broker's death


@on_stage
async def test_a_new_broker_is_given_the_list_of_requests(stage: Stage) -> None:
    await stage.link()
    kept, abandoned = begin(stage), begin(stage)
    first = await stage.broker.next(Submit)
    second = await stage.broker.next(Submit)
    stage.expire(second)
    with pytest.raises(DeadlineExceededError):
        await abandoned
    broker_ends(stage)
    assert not stage.client.linked
    unsent = begin(stage)
    hello = await stage.broker.greet(FIRST)
    assert hello.requests == (first,)
    assert hello.abandoned == (second.id,)
    third = await stage.broker.next(Submit)
    assert third.id not in (first.id, second.id)
    stage.broker.say(Completed(first.id), Released(second.id), Completed(third.id))
    await asyncio.gather(kept, unsent)
    assert len(stage.client.ledger) == 0
    assert stage.memory.used == 2 * 64, "those of the two answers"


@on_stage
async def test_a_lost_message_makes_the_link_anew_and_loses_no_request(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.broker.lose(Completed(submit.id))
    stage.broker.say(Released(12345))
    hello = await stage.broker.greet(FIRST)
    assert hello.requests == (submit,)
    stage.broker.say(Completed(submit.id))
    await task


@on_stage
async def test_restart_link_is_obeyed(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    stage.broker.say(RestartLink())
    hello = await stage.broker.greet(FIRST)
    assert hello.requests == (submit,)
    stage.broker.say(Completed(submit.id))
    await task


@on_stage
async def test_a_broker_that_ends_right_after_its_welcome_is_followed_by_the_next(stage: Stage) -> None:
    stage.client.start()
    task = begin(stage)
    await stage.broker.greet(process=GONE)
    hello = await stage.broker.greet(FIRST)
    assert hello.requests == (), "the dead one was sent nothing"
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id))
    await task


@on_stage
async def test_a_request_that_three_brokers_did_not_survive_is_failed(stage: Stage) -> None:
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    for _ in range(2):
        broker_ends(stage)
        hello = await stage.broker.greet(FIRST)
        assert hello.requests == (submit,)
        await stage.until(lambda: stage.client.linked)
    broker_ends(stage)
    with pytest.raises(InternalError, match="three times"):
        await task
    assert stage.memory.used == 64, "a worker may still write to it"
    hello = await stage.broker.greet(FIRST)
    assert (hello.requests, hello.abandoned) == ((), (submit.id,))
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


@on_stage
async def test_the_last_catalogue_stays_known_without_a_broker(stage: Stage) -> None:
    await stage.link()
    broker_ends(stage)
    assert not stage.client.linked
    assert stage.client.catalogue is not None


@on_stage
async def test_an_abandoned_request_of_a_dead_broker_is_cancelled_at_the_next(stage: Stage) -> None:
    """Between the Hello and its answer the deadline passes: the Hello lists it as wanted."""
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    broker_ends(stage)
    hello = await stage.broker.next(FrontendHello)
    assert hello.requests == (submit,)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stage.greet_again()
    hello = await stage.broker.greet(FIRST)
    assert (hello.requests, hello.abandoned) == ((), (submit.id,))
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


@on_stage
async def test_a_request_that_is_given_up_between_hello_and_welcome_is_cancelled(stage: Stage) -> None:
    """The Hello listed it as wanted."""
    await stage.link()
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    broker_ends(stage)
    greeting = asyncio.create_task(stage.broker.greet(FIRST))
    stage.expire(submit)
    with pytest.raises(DeadlineExceededError):
        await task
    assert (await greeting).requests == (submit,)
    assert await stage.broker.next(Cancel) == Cancel(submit.id)


# ---- waiting


@on_stage
async def test_waiting_for_a_catalogue(stage: Stage) -> None:
    await stage.link()
    waiting = asyncio.create_task(stage.client.wait_for_catalogue(3, FAR))
    stage.broker.say(catalogue(2, status(1)))
    await stage.broker.next(Acknowledge)
    await stage.broker.next(Acknowledge)
    assert not waiting.done()
    stage.broker.say(catalogue(3, status(1)))
    await waiting
    await stage.client.wait_for_catalogue(3, 0)


@on_stage
async def test_waiting_for_a_catalogue_ends_with_the_deadline(stage: Stage) -> None:
    await stage.link()
    with pytest.raises(DeadlineExceededError):
        await stage.client.wait_for_catalogue(2, soon())
    with pytest.raises(DeadlineExceededError):
        await stage.client.wait_for_catalogue(2, time.monotonic_ns() - 1)


@on_stage
async def test_drained_waits_for_the_answers(stage: Stage) -> None:
    await stage.link()
    assert await stage.client.drained(10)
    task = begin(stage)
    submit = await stage.broker.next(Submit)
    assert not await stage.client.drained(0.01)
    draining = asyncio.create_task(stage.client.drained(10))
    stage.broker.say(Completed(submit.id))
    assert await draining
    await task


# ---- a new configuration

MODELS = (ModelConfig("a", "/a"), ModelConfig("b", "/b"))


def reconfigure(
    stage: Stage, models: tuple[ModelConfig, ...] | None = MODELS, deadline: int = FAR
) -> asyncio.Task[Reconfiguration]:
    return asyncio.create_task(stage.client.reconfigure(models, deadline))


@on_stage
async def test_a_configuration_is_asked_for_and_answered(stage: Stage) -> None:
    await stage.link()
    first, second = reconfigure(stage), reconfigure(stage, None)
    sent = [await stage.broker.next(Reconfigure), await stage.broker.next(Reconfigure)]
    assert [one.models for one in sent] == [MODELS, None]
    stage.broker.say(Reconfigured(sent[1].id, changed=False))
    assert await second == Reconfiguration(changed=False)
    assert not first.done()
    stage.broker.say(Reconfigured(sent[0].id, changed=True, failures=("b: corrupt",)))
    assert await first == Reconfiguration(changed=True, failures=("b: corrupt",))


@on_stage
async def test_a_refused_configuration_is_the_brokers_error(stage: Stage) -> None:
    await stage.link()
    asked = reconfigure(stage, None)
    sent = await stage.broker.next(Reconfigure)
    error = WireError(Code.FAILED_PRECONDITION, "no configuration file is watched")
    stage.broker.say(Reconfigured(sent.id, error=error))
    with pytest.raises(FailedPreconditionError, match="no configuration file is watched"):
        await asked


@pytest.mark.parametrize("died", [True, False])
def test_a_lost_broker_ends_the_wait_for_a_configuration(tmp_path: Path, died: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        asked = reconfigure(stage)
        sent = await stage.broker.next(Reconfigure)
        if died:
            broker_ends(stage)
        else:
            stage.broker.say(RestartLink())
        with pytest.raises(UnavailableError, match="ask again"):
            await asked
        await stage.broker.greet(FIRST)
        await stage.until(lambda: stage.client.linked)
        # The answer of the dead one's time is nobody's; a number is not used twice.
        again = reconfigure(stage)
        other = await stage.broker.next(Reconfigure)
        assert other.id != sent.id
        stage.broker.say(Reconfigured(sent.id, changed=False), Reconfigured(other.id, changed=True))
        assert (await again).changed

    on_stage(scenario)(tmp_path)


@on_stage
async def test_without_a_broker_a_configuration_is_refused_at_once(stage: Stage) -> None:
    stage.client.start()
    with pytest.raises(UnavailableError, match="ask again"):
        await reconfigure(stage)


@on_stage
async def test_the_wait_for_a_configuration_ends_with_the_deadline(stage: Stage) -> None:
    await stage.link()
    asked = reconfigure(stage, deadline=soon())
    sent = await stage.broker.next(Reconfigure)
    with pytest.raises(DeadlineExceededError):
        await asked
    stage.broker.say(Reconfigured(sent.id), catalogue(2, status(1)))
    await stage.client.wait_for_catalogue(2, FAR)


@on_stage
async def test_the_number_of_configurations_that_are_waited_for_is_bounded(stage: Stage) -> None:
    await stage.link()
    asked = [reconfigure(stage) for _ in range(MAX_RECONFIGURATIONS)]
    sent = [await stage.broker.next(Reconfigure) for _ in asked]
    with pytest.raises(ResourceExhaustedError, match=str(MAX_RECONFIGURATIONS)):
        await reconfigure(stage)
    for task in asked[1:]:
        task.cancel()
    await asyncio.gather(*asked[1:], return_exceptions=True)
    stage.broker.say(*(Reconfigured(one.id) for one in sent))
    await asked[0]
    one_more = reconfigure(stage)
    stage.broker.say(Reconfigured((await stage.broker.next(Reconfigure)).id))
    await one_more


def test_the_routers_file_may_come_after_the_frontend(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.broker.close()
        # Else the link may meet the closed router, which is not closed at once, and lose its Hello.
        (tmp_path / "broker.ipc").unlink()
        stage.client.start()
        stage.broker = type(stage.broker)(tmp_path / "broker.ipc")
        await stage.broker.greet(FIRST)
        await stage.until(lambda: stage.client.linked)

    on_stage(scenario)(tmp_path)
