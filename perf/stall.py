"""`python -m perf.stall`: how long a long JSON body keeps a REST process from serving others, beside its own parse.

A Predict of about 3 MB goes through the REST application in this process while a task on the same loop notes the
longest time between two of its turns. The parse is one pass of simdjson over the same text (of the standard library,
for a text with NaN, which simdjson refuses). Both are CPU time of this process, so that what else the machine does is
not in them; medians over several requests.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simdjson
import uvloop

from common.config import ServerConfig
from common.messages import VersionId
from common.tensors import Signature, TensorSpec
from frontends.interface import BuildInputs, OutputTensor, Selector, Served
from frontends.rest.app import RestApp, create_app
from frontends.rest.offload import share_fairly

REQUESTS = 16
FLOATS = 300_000
_PATH = b"/v1/models/m:predict"
_FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "rows of 1000": lambda numbers: {"instances": numbers.reshape(-1, 1000).tolist()},
    "rows of 1": lambda numbers: {"instances": numbers.reshape(-1, 1).tolist()},
    "one flat column": lambda numbers: {"inputs": numbers.tolist()},
    "4 dimensions": lambda numbers: {"instances": numbers.reshape(1, 3, 250, 400).tolist()},
    "a named column": lambda numbers: {"inputs": {"x": numbers.reshape(-1, 1000).tolist()}},
    "20000 objects": lambda numbers: {
        "instances": [{"x": row} for row in numbers.reshape(20000, -1).tolist()]
    },
    "whole numbers": lambda numbers: {"instances": (numbers * 1e6).astype(int).reshape(-1, 1000).tolist()},
    "with NaN": lambda numbers: {"instances": [*numbers.tolist(), float("nan")]},
    "booleans": lambda numbers: {"instances": (numbers > 0.5).tolist()},
}


@dataclass
class _Prediction:
    served: Served
    outputs: dict[str, OutputTensor]

    def release(self) -> None:
        """Nothing is lent."""


class _Dataplane:
    """Reads the inputs and answers with `answer`."""

    def __init__(self, answer: np.ndarray) -> None:
        signature = Signature((TensorSpec("x", "float32", (-1,)),), (TensorSpec("y", "float32", (-1,)),))
        self._served = Served(VersionId("m", 1), 1, signature)
        self._answer = answer

    def choose(self, selector: Selector) -> Served:
        """See DataplaneInterface."""
        return self._served

    async def predict(
        self, selector: Selector, build: BuildInputs, deadline_ns: int, outputs: frozenset[str] = frozenset()
    ) -> _Prediction:
        """See DataplaneInterface."""
        build(self._served)
        return _Prediction(self._served, {"y": OutputTensor("float32", self._answer)})


async def _ask(app: RestApp, body: bytes) -> int:
    """One request; the length of its answer."""
    event = {"type": "http.request", "body": body, "more_body": False}
    length = 0

    async def receive() -> dict[str, Any]:
        return event

    async def send(message: dict[str, Any]) -> None:
        nonlocal length
        assert message.get("status", 200) == 200, message
        length += len(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": _PATH.decode(),
        "raw_path": _PATH,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-length", b"%d" % len(body))],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return length


async def _longest_hold(app: RestApp, body: bytes) -> float:
    """Milliseconds that a request keeps another task from its turn."""
    asking = asyncio.ensure_future(_ask(app, body))
    longest = 0.0
    last = time.process_time()
    while not asking.done():
        await asyncio.sleep(0)
        now = time.process_time()
        longest = max(longest, now - last)
        last = now
    await asking
    return 1e3 * longest


def _parse_ms(body: bytes) -> float:
    def read() -> None:
        try:
            simdjson.Parser().parse(body)
        except ValueError:
            json.loads(body)

    times = []
    for _ in range(REQUESTS):
        start = time.process_time()
        read()
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def _cases() -> Iterator[tuple[str, bytes, np.ndarray]]:
    """What, the body, and what is answered."""
    numbers = np.round(np.random.default_rng(20).random(FLOATS), 7)
    for name, form in _FORMS.items():
        yield name, json.dumps(form(numbers)).encode(), np.zeros(1, np.float32)
    single = numbers.astype(np.float32)
    short = b'{"instances": [1.5]}'
    for name, shape in (("answer, rows of 1000", (-1, 1000)), ("answer, rows of 1", (-1, 1))):
        yield name, short, single.reshape(shape)


async def _measure() -> None:
    print(f"{'body':24} {'KB':>6} {'parse ms':>9} {'hold ms':>8}")
    for name, body, answer in _cases():
        app = create_app(_Dataplane(answer), ServerConfig(run_dir="", models=()))  # type: ignore[arg-type]
        share_fairly()
        size = await _ask(app, body)
        hold = statistics.median([await _longest_hold(app, body) for _ in range(REQUESTS)])
        app.close()
        print(f"{name:24} {max(len(body), size) >> 10:6} {_parse_ms(body):9.2f} {hold:8.2f}", flush=True)


if __name__ == "__main__":
    uvloop.run(_measure())
