"""`python -m tests.integration.rest_server RUN_DIR`: the REST frontend over the fake data plane.

Its models: `one` adds one to three numbers; `slow` does so after as many seconds as the first of them says; `pid` and
`cancelled` answer with the worker's number and with how many of its requests were cancelled.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.config import ServerConfig, load
from common.tensors import Signature, TensorSpec
from frontends.interface import BuildInputs, Selector
from frontends.memory import Block
from frontends.rest.server import run
from tests.unit.frontends.fake_dataplane import FakeDataplane, FakePrediction, FakeVersion, add_one


def _constant(value: Callable[[], int]) -> FakeVersion:
    signature = Signature((TensorSpec("x", "int64", (-1,)),), (TensorSpec("y", "int64", (1,)),))
    return FakeVersion(signature, lambda _: {"y": np.array([value()])})


class SlowDataplane(FakeDataplane):
    """The fake one, with a model that takes its time."""

    async def predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> FakePrediction:
        """See DataplaneInterface."""
        if selector.model == "slow":
            seconds = float(build(self.choose(selector))["data"].array.flat[0])
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return await super().predict(selector, build, deadline_ns, outputs, body)


class FakeRuntime:
    """Announces by a file in the run directory."""

    def __init__(self, config: ServerConfig) -> None:
        self._run_dir = Path(config.run_dir)
        self.dataplane = SlowDataplane({})
        self.dataplane.models = {
            "one": {1: add_one(shape=(-1, 3))},
            "slow": {1: add_one(shape=(-1, 3))},
            "pid": {1: _constant(os.getpid)},
            "cancelled": {1: _constant(lambda: self.dataplane.cancelled)},
            "m" * 4096: {1: add_one(shape=(-1, 3))},
        }

    def announce_listening(self) -> None:
        (self._run_dir / f"listening-{os.getpid()}").touch()

    async def drain(self, timeout_s: float) -> bool:
        (self._run_dir / f"drained-{os.getpid()}").touch()
        return True

    async def close(self) -> None:
        (self._run_dir / f"closed-{os.getpid()}").touch()


async def _start(config: ServerConfig) -> FakeRuntime:
    if (Path(config.run_dir) / "fail").exists():
        raise OSError("there is no memory for the arena")
    return FakeRuntime(config)


if __name__ == "__main__":
    sys.exit(run(load(Path(sys.argv[1])), _start))
