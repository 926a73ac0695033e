"""Encoded images in a request's inputs become arrays, beside the event loop.

    inputs, some of STRING ─ checked (loop) ─▶ images decoded, _THREADS at a time (pool) ─▶ inputs, those of uint8

Pillow decodes without holding the interpreter's lock, so the loop goes on. Requests take turns, image by image, for
none has more of them in the pool than there are threads. One that is cancelled, or whose deadline passes, takes back
what has not begun.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np

from common.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
from common.tensors import DYNAMIC, Signature, TensorSpec
from frontends.checks import check_names, check_shape
from frontends.interface import STRING, InputTensor
from frontends.picture import Plan, decode, lay_out, plan_for

MAX_DECODED_BYTES = 256 << 20
"""Of decoded images, of all requests together, that have not been passed on yet."""
MAX_REQUESTS = 256
"""That wait for their images at the same time."""

_THREADS = 2

_Result = TypeVar("_Result")


class ImageDecoder:
    """One a frontend process."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")
        self._requests = 0
        self._bytes = 0

    @property
    def decoded_bytes(self) -> int:
        """Of images that have not been passed on yet."""
        return self._bytes

    def close(self) -> None:
        """Decode nothing any more that has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def decode(
        self, signature: Signature, inputs: Mapping[str, InputTensor], deadline_ns: int
    ) -> dict[str, InputTensor]:
        """The inputs, images among them decoded for the model: strings for an input of numbers.

        `deadline_ns` is CLOCK_MONOTONIC. Raises InvalidArgumentError, ResourceExhaustedError, DeadlineExceededError.
        """
        check_names(signature, inputs)
        wanted = [
            spec for spec in signature.inputs if inputs[spec.name].dtype == STRING and spec.dtype != STRING
        ]
        if not wanted:
            return dict(inputs)
        if self._requests >= MAX_REQUESTS:
            raise ResourceExhaustedError(
                f"{self._requests} requests wait on this frontend for their images, the most that it takes"
            )
        self._requests += 1
        before = dict(inputs)
        decoded: dict[str, np.ndarray] = {}
        try:
            for spec in wanted:
                decoded[spec.name] = await self._decode_input(spec, inputs[spec.name].array, deadline_ns)
            return before | {name: InputTensor("uint8", array) for name, array in decoded.items()}
        finally:
            self._requests -= 1
            self._bytes -= sum(array.nbytes for array in decoded.values())

    async def _decode_input(self, spec: TensorSpec, strings: np.ndarray, deadline_ns: int) -> np.ndarray:
        """The batch of images. Its bytes are counted, unless it fails."""
        plan = plan_for(spec)
        if strings.ndim > 1:
            raise InvalidArgumentError(
                f"Input {spec.name!r}: images come in shape [N], one an element of the batch, got shape "
                f"{list(strings.shape)}"
            )
        images: list[bytes] = strings.reshape(-1).tolist()
        height, width = max(plan.height, 0), max(plan.width, 0)
        check_shape(spec, plan.shape(len(images), height, width))
        if DYNAMIC in (plan.height, plan.width) and images:
            (first,) = await self._run([partial(decode, images[0], plan)], deadline_ns)
            height, width = first.shape[:2]
        shape = plan.shape(len(images), height, width)
        size = prod(shape)
        if self._bytes + size > MAX_DECODED_BYTES:
            raise ResourceExhaustedError(
                f"The request's images take {size} bytes when decoded, of which a frontend holds {MAX_DECODED_BYTES} "
                f"at the most and has {self._bytes} now"
            )
        self._bytes += size
        try:
            batch = np.empty(shape, np.uint8)
            jobs = (
                partial(_place, image, plan, batch[index], (height, width))
                for index, image in enumerate(images)
            )
            await self._run(jobs, deadline_ns)
        except BaseException:
            self._bytes -= size
            raise
        return batch

    async def _run(self, jobs: Iterable[Callable[[], _Result]], deadline_ns: int) -> list[_Result]:
        """What the jobs return, in any order; the first error of one of them."""
        loop = asyncio.get_running_loop()
        waiting = iter(jobs)
        results: list[_Result] = []

        async def work() -> None:
            for job in waiting:
                result = await loop.run_in_executor(self._pool, job)
                results.append(result)

        lanes = [loop.create_task(work()) for _ in range(_THREADS)]
        try:
            done, late = await asyncio.wait(
                lanes,
                timeout=max(0, deadline_ns - time.monotonic_ns()) / 1e9,
                return_when=asyncio.FIRST_EXCEPTION,
            )
        finally:
            for lane in lanes:
                lane.cancel()
        errors = [error for error in [lane.exception() for lane in done] if error is not None]
        if errors:
            raise errors[0]
        if late:
            raise DeadlineExceededError("The deadline passed before the request's images were decoded")
        return results


def _place(data: bytes, plan: Plan, target: np.ndarray, size: tuple[int, int]) -> None:
    """Decode an image into its element of the batch."""
    picture = decode(data, plan)
    if picture.shape[:2] != size:
        raise InvalidArgumentError(
            f"Input {plan.name!r}: images of one request must be equally large, got {size[1]}×{size[0]} and "
            f"{picture.shape[1]}×{picture.shape[0]}"
        )
    np.copyto(target, lay_out(picture, plan))
