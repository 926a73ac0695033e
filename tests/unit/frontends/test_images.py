"""frontends.images: real threads, real images; the loop stays free, and every bound holds."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from common.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
from common.tensors import Signature, TensorSpec
from frontends import images
from frontends.images import ImageDecoder
from frontends.interface import STRING, InputTensor
from tests.support.pictures import plain

_NEVER = 1 << 62


@pytest.fixture
def decoder() -> Iterator[ImageDecoder]:
    """One, closed at the end."""
    one = ImageDecoder()
    yield one
    one.close()


def _signature(*shape: int, layout: str = "") -> Signature:
    return Signature((TensorSpec("image", "float32", shape, layout=layout),), ())


def _strings(*values: bytes, shape: tuple[int, ...] | None = None) -> dict[str, InputTensor]:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return {"image": InputTensor(STRING, array if shape is None else array.reshape(shape))}


def _decode(
    decoder: ImageDecoder,
    signature: Signature,
    inputs: dict[str, InputTensor],
    deadline_ns: int = _NEVER,
) -> np.ndarray:
    decoded = asyncio.run(decoder.decode(signature, inputs, deadline_ns))["image"]
    assert decoded.dtype == "uint8"
    assert decoder.decoded_bytes == 0
    return decoded.array


def _refusal(
    decoder: ImageDecoder, signature: Signature, inputs: dict[str, InputTensor], kind: type[Exception]
) -> str:
    with pytest.raises(kind) as caught:
        asyncio.run(decoder.decode(signature, inputs, _NEVER))
    assert decoder.decoded_bytes == 0
    return str(caught.value)


def test_each_image_is_an_element_of_the_batch(decoder: ImageDecoder) -> None:
    pictures = [plain(3, 2, (n, 0, 100 + n)) for n in range(50)]
    batch = _decode(decoder, _signature(-1, 3, 2, 3, layout="NCHW"), _strings(*pictures))
    assert batch.shape == (50, 3, 2, 3)
    assert batch[:, :, 0, 0].tolist() == [[100 + n, 0, n] for n in range(50)]


def test_a_scalar_is_a_batch_of_one(decoder: ImageDecoder) -> None:
    assert _decode(decoder, _signature(1, 4, 4, 3), _strings(plain(1, 1), shape=())).shape == (1, 4, 4, 3)


def test_images_keep_their_size_where_the_input_leaves_it_open(decoder: ImageDecoder) -> None:
    signature = _signature(-1, -1, -1, 3)
    assert _decode(decoder, signature, _strings(plain(5, 7), plain(5, 7))).shape == (2, 7, 5, 3)
    text = _refusal(decoder, signature, _strings(plain(5, 7), plain(7, 5)), InvalidArgumentError)
    assert "equally large, got 5×7 and 7×5" in text


def test_other_inputs_are_left_as_they_are(decoder: ImageDecoder) -> None:
    signature = Signature(
        (TensorSpec("image", "uint8", (1, 2, 2, 3)), TensorSpec("scale", "float32", (1,))), ()
    )
    scale = InputTensor("float32", np.ones(1, np.float32))
    inputs = {**_strings(plain(2, 2)), "scale": scale}
    decoded = asyncio.run(decoder.decode(signature, inputs, _NEVER))
    assert decoded["scale"] is scale
    assert decoded["image"].array.shape == (1, 2, 2, 3)


def test_no_images_are_an_empty_batch(decoder: ImageDecoder) -> None:
    assert _decode(decoder, _signature(-1, -1, 4, 3), _strings()).shape == (0, 0, 4, 3)


@pytest.mark.parametrize(
    ("shape", "inputs", "text"),
    [
        ((1, 2, 2, 3), _strings(b"x", b"y"), "Obtained batch size 2, required batch size 1"),
        ((2, 2, 2, 3), _strings(b"x", b"y", shape=(2, 1)), "one an element of the batch, got shape [2, 1]"),
        ((1, 10), _strings(b"x"), "takes no strings"),
        ((1, 2, 2, 3), {"other": _strings(b"x")["image"]}, "alias not found in signature: ['other']"),
        ((2, 2, 2, 3), _strings(plain(1, 1), b"no image"), "neither a JPEG nor a PNG"),
    ],
)
def test_what_is_refused(
    decoder: ImageDecoder, shape: tuple[int, ...], inputs: dict[str, InputTensor], text: str
) -> None:
    assert text in _refusal(decoder, _signature(*shape), inputs, InvalidArgumentError)


def test_decoded_bytes_are_bounded_before_they_are_taken(decoder: ImageDecoder) -> None:
    side = 2000
    count = images.MAX_DECODED_BYTES // (side * side * 3) + 1
    text = _refusal(
        decoder, _signature(-1, side, side, 3), _strings(*[b"never read"] * count), ResourceExhaustedError
    )
    assert str(images.MAX_DECODED_BYTES) in text


def test_waiting_requests_are_bounded(decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_REQUESTS", 3)

    async def ask() -> list[object]:
        calls = [decoder.decode(_signature(1, 2, 2, 3), _strings(plain(2, 2)), _NEVER) for _ in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    kinds = [type(answer) for answer in asyncio.run(ask())]
    assert kinds == [dict, dict, dict, ResourceExhaustedError, ResourceExhaustedError]
    assert decoder.decoded_bytes == 0


class _Blocked:
    """Holds all threads of a decoder until it is released."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.release = threading.Event()
        self.begun = threading.Barrier(images._THREADS + 1)
        for _ in range(images._THREADS):
            pool.submit(self._hold)
        self.begun.wait(10)

    def _hold(self) -> None:
        self.begun.wait(10)
        self.release.wait(10)


def test_a_deadline_ends_the_wait(decoder: ImageDecoder) -> None:
    blocked = _Blocked(decoder._pool)
    try:
        with pytest.raises(DeadlineExceededError):
            _decode(decoder, _signature(1, 2, 2, 3), _strings(plain(2, 2)), time.monotonic_ns() + 20_000_000)
        assert decoder.decoded_bytes == 0
    finally:
        blocked.release.set()
    assert _decode(decoder, _signature(1, 2, 2, 3), _strings(plain(2, 2))).shape == (1, 2, 2, 3)


def test_a_cancelled_request_takes_its_images_back(decoder: ImageDecoder) -> None:
    blocked = _Blocked(decoder._pool)

    async def cancel() -> None:
        call = decoder.decode(_signature(-1, 2, 2, 3), _strings(*[plain(2, 2)] * 9), _NEVER)
        task = asyncio.create_task(call)
        for _ in range(100):
            await asyncio.sleep(0)
        assert decoder.decoded_bytes == 9 * 2 * 2 * 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(cancel())
        assert decoder.decoded_bytes == 0
        waiting = [decoder._pool._work_queue.get_nowait() for _ in range(decoder._pool._work_queue.qsize())]
        assert waiting
        assert all(item.future.cancelled() for item in waiting)
    finally:
        blocked.release.set()


def test_the_loop_goes_on_while_images_are_decoded(decoder: ImageDecoder) -> None:
    """It answers others while both threads are in use; with decoding on the loop it could not end at all."""
    blocked = _Blocked(decoder._pool)

    async def ask() -> tuple[int, ...]:
        call = decoder.decode(_signature(1, 2, 2, 3), _strings(plain(2, 2)), _NEVER)
        task = asyncio.create_task(call)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        blocked.release.set()
        return (await task)["image"].array.shape

    assert asyncio.run(ask()) == (1, 2, 2, 3)
