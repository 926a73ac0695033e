"""frontends.dataplane: from named arrays to named arrays, with a scripted broker in between."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from common.errors import (
    Code,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    WireError,
)
from common.messages import (
    Cancel,
    Catalogue,
    Completed,
    ModelStatus,
    OutputResult,
    Reconfigure,
    Reconfigured,
    Released,
    Stale,
    Submit,
    VersionId,
    VersionStatus,
)
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.admission import MAX_FRAME_BYTES
from frontends.interface import STRING, InputTensor, Selector, Served
from frontends.memory import ARENA
from frontends.prediction import Prediction
from tests.support.pictures import plain
from tests.unit.frontends.scripted_broker import (
    ARENA_BYTES,
    LARGE_BYTES,
    SIGNATURE,
    Stage,
    catalogue,
    on_stage,
    status,
)

FAR = 1 << 62
DEFAULT = Selector("m")
X = np.arange(8, dtype=np.float32).reshape(2, 4)
Y = X * 2 + 1
Z = np.array([7, 8, 9], np.int64)


def inputs(array: np.ndarray = X, dtype: str = "float32") -> Mapping[str, InputTensor]:
    return {"x": InputTensor(dtype, array)}


def predict(
    stage: Stage,
    selector: Selector = DEFAULT,
    given: Mapping[str, InputTensor] | None = None,
    deadline: int = FAR,
    outputs: frozenset[str] = frozenset(),
) -> asyncio.Task[Prediction]:
    found = inputs() if given is None else given
    coroutine = stage.dataplane.predict(selector, lambda _: found, deadline, outputs)
    return asyncio.create_task(coroutine)


async def refusal(
    stage: Stage,
    selector: Selector = DEFAULT,
    given: Mapping[str, InputTensor] | None = None,
    outputs: frozenset[str] = frozenset(),
) -> ServingError:
    """Of a request that must not even reach the broker."""
    with pytest.raises(ServingError) as caught:
        await predict(stage, selector, given, outputs=outputs)
    assert stage.memory.used == 0
    assert not any(isinstance(message, Submit) for message in stage.broker.pending())
    return caught.value


def placed(stage: Stage, submit: Submit, dtype: type = np.float32) -> np.ndarray:
    """A copy of what the first input holds in the arena."""
    ref = submit.inputs[0]
    found: np.ndarray = np.ndarray(ref.shape, dtype, stage.memory._arena.buffer, ref.offset).copy()
    return found


def ready(stage: Stage) -> bool:
    return stage.dataplane.ready


async def answer(stage: Stage, y: np.ndarray = Y, z: np.ndarray = Z) -> Submit:
    """As a worker: take the next request and answer it."""
    submit = await stage.broker.next(Submit)
    stage.broker.say(stage.infer(submit, y, z.tobytes()), frames=(z.tobytes(),))
    return submit


# ---- the way there and back


@on_stage
async def test_a_request_is_answered(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, deadline=FAR - 5)
    submit = await answer(stage)
    assert (submit.version, submit.generation, submit.segment, submit.deadline) == (
        VersionId("m", 1),
        1,
        ARENA,
        FAR - 5,
    )
    assert submit.inputs[0].shape == (2, 4)
    assert [ref.nbytes for ref in submit.outputs] == [32, 0]
    prediction = await task
    assert prediction.served.id == VersionId("m", 1)
    assert list(prediction.outputs) == ["y", "z"]
    assert [prediction.outputs[name].dtype for name in ("y", "z")] == ["float32", "int64"]
    np.testing.assert_array_equal(prediction.outputs["y"].array, Y)
    np.testing.assert_array_equal(prediction.outputs["z"].array, Z)
    prediction.release()
    assert prediction.outputs == {}
    assert stage.memory.used == 0


@on_stage
async def test_inputs_are_in_place_before_the_broker_hears_of_them(stage: Stage) -> None:
    await stage.link()
    task = predict(stage)
    submit = await stage.broker.next(Submit)
    np.testing.assert_array_equal(placed(stage, submit), X)
    task.cancel()


@on_stage
async def test_inputs_are_converted_to_the_models_type(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, given=inputs(X.astype(np.float64) + 0.5, "float64"))
    submit = await stage.broker.next(Submit)
    np.testing.assert_array_equal(placed(stage, submit), X + 0.5)
    task.cancel()


@on_stage
async def test_inputs_in_any_memory_layout(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, given=inputs(np.broadcast_to(np.float32(3), (5, 4))))
    submit = await stage.broker.next(Submit)
    np.testing.assert_array_equal(placed(stage, submit), np.full((5, 4), 3, np.float32))
    task.cancel()


_PICTURE = Signature((TensorSpec("x", "float32", (1, 3, 1, 2)),), ())


def encoded(data: bytes) -> Mapping[str, InputTensor]:
    array = np.empty(1, np.object_)
    array[0] = data
    return inputs(array, STRING)


@on_stage
async def test_images_are_decoded_on_their_way(stage: Stage) -> None:
    await stage.link(catalogue(1, status(1, signature=_PICTURE)))
    task = predict(stage, given=encoded(plain(5, 5, (1, 2, 3))))
    submit = await stage.broker.next(Submit)
    assert placed(stage, submit).tolist() == [[[[3, 3]], [[2, 2]], [[1, 1]]]]
    task.cancel()


@on_stage
async def test_an_image_that_cannot_be_read_never_leaves(stage: Stage) -> None:
    await stage.link(catalogue(1, status(1, signature=_PICTURE)))
    assert isinstance(await refusal(stage, given=encoded(b"none")), InvalidArgumentError)


@on_stage
async def test_only_the_wanted_outputs(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, outputs=frozenset({"z"}))
    await answer(stage)
    prediction = await task
    assert list(prediction.outputs) == ["z"]
    prediction.release()


@on_stage
async def test_releasing_twice_frees_once(stage: Stage) -> None:
    await stage.link()
    tasks = [predict(stage), predict(stage)]
    for _ in tasks:
        await answer(stage)
    first, second = await asyncio.gather(*tasks)
    first.release()
    used = stage.memory.used
    first.release()
    assert stage.memory.used == used > 0
    second.release()
    assert stage.memory.used == 0


@on_stage
async def test_two_requests_never_share_memory(stage: Stage) -> None:
    await stage.link()
    tasks = [predict(stage, given=inputs(X + number)) for number in range(8)]
    submits = [await stage.broker.next(Submit) for _ in tasks]
    for number, submit in enumerate(submits):
        np.testing.assert_array_equal(placed(stage, submit), X + number)
        stage.broker.say(stage.infer(submit, Y + number, Z.tobytes()), frames=(Z.tobytes(),))
    for number, prediction in enumerate(await asyncio.gather(*tasks)):
        np.testing.assert_array_equal(prediction.outputs["y"].array, Y + number)
        prediction.release()
    assert stage.memory.used == 0


@on_stage
async def test_what_is_larger_than_the_arena_gets_a_segment_of_its_own(stage: Stage) -> None:
    await stage.link()
    rows = ARENA_BYTES // 16 + 1
    task = predict(stage, given=inputs(np.ones((rows, 4), np.float32)))
    submit = await stage.broker.next(Submit)
    assert submit.segment != ARENA
    assert stage.memory.descriptor(submit.segment) is not None
    assert stage.memory.used >= rows * 16
    stage.broker.say(
        Completed(submit.id, (OutputResult((2, 4)), OutputResult((3,), 1))), frames=(Z.tobytes(),)
    )
    prediction = await task
    assert prediction.outputs["y"].array.shape == (2, 4)
    prediction.release()
    assert stage.memory.used == 0
    assert stage.memory.descriptor(submit.segment) is None


@on_stage
async def test_a_segment_is_unmapped_although_its_requests_error_is_kept(stage: Stage) -> None:
    """What keeps an error keeps the frames that it has passed, and all that they hold."""
    await stage.link()
    task = predict(stage, given=inputs(np.ones((ARENA_BYTES // 16 + 1, 4), np.float32)))
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id, (), WireError(Code.INTERNAL, "broken")))
    with pytest.raises(InternalError) as caught:
        await task
    assert caught.value.__traceback__ is not None
    assert stage.memory.used == 0
    assert not stage.memory._unclosed


@on_stage
async def test_too_large_for_the_bound_is_refused(stage: Stage) -> None:
    await stage.link()
    error = await refusal(stage, given=inputs(np.broadcast_to(np.float32(0), (LARGE_BYTES // 16 + 1, 4))))
    assert isinstance(error, ResourceExhaustedError)
    assert str(LARGE_BYTES) in error.message


# ---- refusals


@on_stage
async def test_before_the_first_catalogue_nothing_is_known(stage: Stage) -> None:
    error = await refusal(stage)
    assert isinstance(error, UnavailableError)
    with pytest.raises(UnavailableError):
        stage.dataplane.statuses(DEFAULT)
    with pytest.raises(UnavailableError):
        stage.dataplane.choose(DEFAULT)


@on_stage
async def test_what_clients_get_wrong_never_reaches_the_broker(stage: Stage) -> None:
    await stage.link(catalogue(1, status(1), status(2, VersionState.LOADING)))
    assert isinstance(await refusal(stage, Selector("nobody")), NotFoundError)
    assert isinstance(await refusal(stage, Selector("m", 9)), NotFoundError)
    assert isinstance(await refusal(stage, Selector("m", 2)), UnavailableError)
    assert isinstance(await refusal(stage, given={}), InvalidArgumentError)
    assert isinstance(await refusal(stage, given={"y": InputTensor("float32", X)}), InvalidArgumentError)
    assert isinstance(await refusal(stage, given=inputs(X.reshape(4, 2))), InvalidArgumentError)
    unknown = await refusal(stage, outputs=frozenset({"y", "w", "v"}))
    assert isinstance(unknown, InvalidArgumentError)
    assert unknown.message == (
        "output tensor alias not found in signature: ['v', 'w']. "
        "Outputs expected to be in the set {['y', 'z']}."
    )


@on_stage
async def test_an_error_while_the_inputs_are_read_or_written_leaves_nothing(stage: Stage) -> None:
    await stage.link()

    def unreadable(_: Served) -> Mapping[str, InputTensor]:
        raise InvalidArgumentError("cannot be read")

    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        await stage.dataplane.predict(DEFAULT, unreadable, FAR)
    wrong = {"x": InputTensor("float64", np.array([["a"] * 4] * 2, object))}
    with pytest.raises(TypeError):
        await predict(stage, given=wrong)
    assert stage.memory.used == 0
    assert len(stage.client.ledger) == 0


@on_stage
async def test_the_number_of_requests_is_bounded(stage: Stage) -> None:
    await stage.link()
    tasks = [predict(stage) for _ in range(100)]
    submits = [await stage.broker.next(Submit) for _ in tasks]
    with pytest.raises(ResourceExhaustedError, match="100 requests in flight"):
        await predict(stage)
    stage.broker.say(Completed(submits[0].id, (OutputResult((2, 4)), OutputResult((0,)))))
    (await tasks[0]).release()
    more = predict(stage)
    await stage.broker.next(Submit)
    for task in [*tasks, more]:
        task.cancel()


@on_stage
async def test_draining_refuses_new_requests_and_finishes_the_others(stage: Stage) -> None:
    await stage.link()
    task = predict(stage)
    submit = await stage.broker.next(Submit)
    assert ready(stage)
    stage.admission.draining = True
    assert not ready(stage)
    with pytest.raises(UnavailableError, match="shutting down"):
        await predict(stage)
    draining = asyncio.create_task(stage.client.drained(10))
    stage.broker.say(stage.infer(submit, Y, b""), frames=(b"",))
    assert await draining
    (await task).release()


# ---- giving up


@on_stage
async def test_after_the_deadline_the_block_is_lent_until_released(stage: Stage) -> None:
    await stage.link()
    task = predict(stage)
    submit = await stage.broker.next(Submit)
    stage.expire(submit)
    with pytest.raises(DeadlineExceededError):
        await task
    await stage.broker.next(Cancel)
    lent = stage.memory.used
    assert lent > 0
    other = predict(stage)
    again = await stage.broker.next(Submit)
    assert again.inputs[0].offset != submit.inputs[0].offset, "a worker may still write there"
    stage.broker.say(Released(submit.id), stage.infer(again, Y, b""), frames=(b"",))
    (await other).release()
    assert stage.memory.used == 0


@on_stage
async def test_a_client_that_goes_leaves_nothing_behind(stage: Stage) -> None:
    await stage.link()
    task = predict(stage)
    submit = await stage.broker.next(Submit)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await stage.broker.next(Cancel)).id == submit.id
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


# ---- versions that leave


@on_stage
async def test_a_stale_request_is_chosen_anew(stage: Stage) -> None:
    await stage.link()
    built: list[int] = []

    def build(served: Served) -> Mapping[str, InputTensor]:
        built.append(served.id.version)
        return inputs()

    task = asyncio.create_task(stage.dataplane.predict(DEFAULT, build, FAR))
    first = await stage.broker.next(Submit)
    stage.broker.say(Stale(first.id, 2))
    await stage.until(lambda: stage.memory.used == 0)
    assert not task.done(), "it waits for the catalogue that the broker spoke of"
    stage.broker.say(catalogue(2, status(1, VersionState.UNLOADING), status(2)))
    second = await answer(stage)
    assert (second.version, second.generation) == (VersionId("m", 2), 2)
    prediction = await task
    assert prediction.served.id.version == 2
    assert built == [1, 2]
    prediction.release()
    assert stage.memory.used == 0


@on_stage
async def test_a_stale_request_for_a_version_that_has_gone_is_refused(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, Selector("m", 1))
    submit = await stage.broker.next(Submit)
    stage.broker.say(Stale(submit.id, 2), catalogue(2, status(1, VersionState.END), status(2)))
    with pytest.raises(NotFoundError, match=re.escape("Specific(m, 1)")):
        await task


@on_stage
async def test_a_stale_request_ends_with_its_deadline(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, deadline=time.monotonic_ns() + 500_000_000)
    submit = await stage.broker.next(Submit)
    stage.broker.say(Stale(submit.id, 2))
    with pytest.raises(DeadlineExceededError):
        await task
    assert stage.memory.used == 0


@on_stage
async def test_a_model_that_never_stands_still_is_given_up(stage: Stage) -> None:
    await stage.link()
    task = predict(stage)
    for generation in range(2, 7):
        submit = await stage.broker.next(Submit)
        stage.broker.say(Stale(submit.id, generation), catalogue(generation, status(generation)))
    with pytest.raises(UnavailableError, match="faster"):
        await task
    assert stage.memory.used == 0


@on_stage
async def test_a_request_that_is_stale_while_the_server_ends_is_waited_for(stage: Stage) -> None:
    await stage.link()
    task = predict(stage)
    submit = await stage.broker.next(Submit)
    draining = asyncio.create_task(stage.client.drained(10))
    await asyncio.sleep(0)
    stage.broker.say(catalogue(2, status(2)), Stale(submit.id, 2))
    await answer(stage)
    (await task).release()
    assert await draining


# ---- answers that do not fit


@pytest.mark.parametrize(
    ("outputs", "frames"),
    [
        ((), ()),
        ((OutputResult((2, 4)),), ()),
        ((OutputResult((2, 4)), OutputResult((3,), 1)), (b"not 24 bytes",)),
        ((OutputResult((2, 4)), OutputResult((2,), 1)), (Z.tobytes(),)),
        ((OutputResult((1 << 20, 4)), OutputResult((3,), 1)), (Z.tobytes(),)),
        ((OutputResult((2, 4)), OutputResult((3,), 2)), (Z.tobytes(),)),
    ],
)
def test_an_answer_that_does_not_fit_is_an_internal_error_and_leaves_nothing(
    tmp_path: Path, outputs: tuple[OutputResult, ...], frames: tuple[bytes, ...]
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        task = predict(stage)
        submit = await stage.broker.next(Submit)
        stage.broker.say(Completed(submit.id, outputs), frames=frames)
        with pytest.raises(InternalError, match="does not fit"):
            await task
        assert stage.memory.used == 0
        stage.admission.take_frames(MAX_FRAME_BYTES)

    on_stage(scenario)(tmp_path)


@on_stage
async def test_frames_are_counted_until_the_prediction_is_released(stage: Stage) -> None:
    await stage.link()
    stage.admission.take_frames(MAX_FRAME_BYTES - 24)
    first = predict(stage)
    await answer(stage)
    prediction = await first
    second = predict(stage)
    await answer(stage)
    with pytest.raises(ResourceExhaustedError, match="unknown size"):
        await second
    prediction.release()
    assert stage.memory.used == 0
    third = predict(stage)
    await answer(stage)
    (await third).release()


# ---- readiness, status, log


@on_stage
async def test_ready_needs_a_broker_and_a_ready_catalogue(stage: Stage) -> None:
    assert not ready(stage)
    await stage.link(catalogue(1, status(1), ready=False))
    assert not ready(stage)
    stage.broker.say(catalogue(2, status(1)))
    await stage.client.wait_for_catalogue(2, FAR)
    assert ready(stage)
    stage.client._on_death()
    assert not ready(stage)
    assert stage.dataplane.statuses(DEFAULT)[0].version == 1


@on_stage
async def test_without_a_broker_requests_wait_for_the_next(stage: Stage) -> None:
    await stage.link()
    stage.client._on_death()
    task = predict(stage)
    await stage.broker.greet(catalogue(2, status(1)))
    await answer(stage)
    (await task).release()


def test_at_debug_each_request_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        for _ in range(2):
            task = predict(stage)
            await answer(stage)
            (await task).release()

    with caplog.at_level(logging.DEBUG, "frontends"):
        on_stage(scenario)(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len(lines) == 2
    pattern = r"model m version 1: deserialization \d+\.\d{3} ms, inference \d+\.\d{3} ms, serialization \d+\.\d{3} ms"
    for line in lines:
        assert re.fullmatch(pattern, line), line


def test_at_info_nothing_is_said_about_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        task = predict(stage)
        await answer(stage)
        (await task).release()

    with caplog.at_level(logging.INFO, "frontends"):
        on_stage(scenario)(tmp_path)
    assert caplog.records == []


@on_stage
async def test_scalars_and_empty_batches(stage: Stage) -> None:
    signature = Signature(
        (TensorSpec("x", "float32", (-1, 4)), TensorSpec("s", "int64", ())), (TensorSpec("y", "float32", ()),)
    )
    await stage.link(catalogue(1, status(1, signature=signature)))
    given = {
        "x": InputTensor("float32", np.zeros((0, 4), np.float32)),
        "s": InputTensor("int64", np.array(5, np.int64)),
    }
    task = predict(stage, given=given)
    submit = await stage.broker.next(Submit)
    assert [ref.shape for ref in submit.inputs] == [(0, 4), ()]
    offset = submit.inputs[1].offset
    assert stage.memory._arena.buffer[offset] == 5
    room = submit.outputs[0]
    stage.memory._arena.buffer[room.offset : room.offset + 4] = np.float32(2.5).tobytes()
    stage.broker.say(Completed(submit.id, (OutputResult(()),)))
    prediction = await task
    assert prediction.outputs["y"].array.shape == ()
    assert float(prediction.outputs["y"].array) == 2.5
    prediction.release()


@on_stage
async def test_a_label_and_a_revision_are_what_the_broker_is_asked_for(stage: Stage) -> None:
    served = VersionStatus(1, int(VersionState.AVAILABLE), None, SIGNATURE, servable=True, revision=4)
    await stage.link(Catalogue(3, True, (ModelStatus("m", (served, status(2)), {"stable": 1}),)))
    task = predict(stage, Selector("m", label="stable"))
    assert (await answer(stage)).version == VersionId("m", 1, 4)
    (await task).release()
    assert list(stage.dataplane.all_statuses()) == ["m"]


@on_stage
async def test_a_stale_request_follows_its_model_to_the_next_revision(stage: Stage) -> None:
    await stage.link()
    task = predict(stage, Selector("m", 1))
    submit = await stage.broker.next(Submit)
    served = VersionStatus(1, int(VersionState.AVAILABLE), None, SIGNATURE, servable=True, revision=1)
    stage.broker.say(Stale(submit.id, 2), catalogue(2, served))
    assert (await answer(stage)).version == VersionId("m", 1, 1)
    (await task).release()


@on_stage
async def test_a_configuration_goes_to_the_broker_but_not_from_a_server_that_ends(stage: Stage) -> None:
    await stage.link()
    asked = asyncio.create_task(stage.dataplane.reconfigure((), FAR))
    sent = await stage.broker.next(Reconfigure)
    assert sent.models == ()
    stage.broker.say(Reconfigured(sent.id, changed=True))
    assert (await asked).changed
    stage.admission.draining = True
    with pytest.raises(UnavailableError, match="shutting down"):
        await stage.dataplane.reconfigure((), FAR)


def test_the_signature_of_these_tests_has_both_kinds_of_outputs() -> None:
    assert [spec.is_static for spec in SIGNATURE.outputs] == [True, False]
