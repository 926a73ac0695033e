"""Versions of which each request brings its own shapes, as the message loop sees them.

    Execute ──admit──▶ runs (queue)            its shapes are compiled
                   ├─▶ waits (Deferred) ──Compiler thread──▶ runs (Resumed) / refused
                   └─▶ refused                 they could not be compiled a moment ago

What is kept and what is compiled next is decided in workers.variants; here it is carried out. All of it by the loop's
thread; compiling and closing are the business of `Loader`, of which this module has one of its own, so that a version
that takes minutes to load delays no request.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from common.errors import Code
from common.messages import Deferred, Execute, Message, RequestKey, Resumed, VersionId
from common.tensors import Signature
from workers.engine import Done, MemoryId, Model, Run, RunResult, VariableModel, failure
from workers.loader import CompileEnded, Loader
from workers.ports import Shapes
from workers.queue import RunQueue
from workers.variants import Variants

_log = logging.getLogger("workers")
_EXPIRED = "The deadline passed while the model was being compiled for the shape of the request"


class ShapedModel:
    """A version's compiled shapes as one workers.engine.Model: each run finds the one that fits it."""

    def __init__(self, source: VariableModel, nireq: int = 1) -> None:
        self.source = source
        self.nireq = nireq
        self.signature: Signature = source.signature
        self.notes = source.notes
        first = source.take_first()
        self.compiled: dict[Shapes, Model] = {} if first is None else dict([first])

    def start(self, run: Run, done: Done) -> RunResult | None:
        """See workers.engine.Model."""
        return self.compiled[tuple(array.shape for array in run.inputs)].start(run, done)

    def poll(self) -> None:
        """See workers.engine.Model."""
        for model in self.compiled.values():
            model.poll()

    def release(self, memory: MemoryId) -> None:
        """See workers.engine.Model."""
        for model in self.compiled.values():
            model.release(memory)

    def close(self) -> None:
        """See workers.engine.Model."""
        while self.compiled:
            self.compiled.popitem()[1].close()
        self.source.close()


class ShapedVersion(NamedTuple):
    """A version and the bookkeeping of its shapes."""

    model: ShapedModel
    variants: Variants


class Shaping:
    """All such versions of this worker."""

    def __init__(
        self,
        loader: Loader,
        queue: RunQueue,
        finish: Callable[[Execute, RunResult], None],
        tell: Callable[[Message], None],
    ) -> None:
        """`finish` answers a request that is in hand, `tell` sends to the broker."""
        self._loader = loader
        self._queue = queue
        self._finish = finish
        self._tell = tell
        self.versions: dict[VersionId, ShapedVersion] = {}
        """Those whose requests are to be admitted here, and reported when they leave."""

    def add(self, version: VersionId, model: ShapedModel, max_shapes: int) -> None:
        """A version is loaded."""
        variants = Variants(max(1, max_shapes))
        for shapes in model.compiled:
            variants.add(shapes)
        self.versions[version] = ShapedVersion(model, variants)

    def remove(self, version: VersionId) -> None:
        """A version has gone; nothing of it is in hand, and nothing is being compiled."""
        self.versions.pop(version, None)

    def is_compiling(self, version: VersionId) -> bool:
        """Whether the version cannot be closed yet."""
        known = self.versions.get(version)
        return known is not None and known.variants.compiling is not None

    def waiting(self) -> tuple[RequestKey, ...]:
        """Requests that wait for their shapes."""
        return tuple(key for one in self.versions.values() for key in one.variants.waiting())

    # ---- events

    def admit(self, request: Execute) -> None:
        """A request whose memory is mapped, of a version that is known here."""
        variants = self.versions[request.version].variants
        admission = variants.admit(request, time.monotonic_ns())
        if admission.runs:
            self._queue.push(request)
            return
        self._queue.hold(request)
        if admission.refusal:
            self._finish(request, failure(Code.INVALID_ARGUMENT, admission.refusal))
            return
        self._tell(Deferred((request.key,)))
        self._step(request.version)

    def ended(self, report: CompileEnded) -> None:
        """The loader has compiled a model, or found that it cannot be."""
        version = self.versions[report.version]
        if report.model is None:
            reason = f"The model cannot take the shapes {_text(report.shapes, version)}: {report.reason}"
            for request in version.variants.failed(reason, time.monotonic_ns()):
                self._finish(request, failure(Code.INVALID_ARGUMENT, reason))
        else:
            version.model.compiled[report.shapes] = report.model
            self._resume(version.variants.compiled())
        self._step(report.version)

    def leave(self, request: Execute) -> None:
        """A request of a version that is known here is finished, whatever came of it."""
        self.versions[request.version].variants.leave(request.key)
        self._step(request.version)

    def drop(self, frontend: str) -> list[Execute]:
        """Take out what this frontend has waiting here; in hand still, to be finished by the caller."""
        return [request for one in self.versions.values() for request in one.variants.drop(frontend)]

    def expire(self) -> None:
        """Answer what has waited past its deadline."""
        now = time.monotonic_ns()
        for one in list(self.versions.values()):
            for request in one.variants.expire(now):
                self._finish(request, failure(Code.DEADLINE_EXCEEDED, _EXPIRED))

    # ---- what follows

    def _step(self, name: VersionId) -> None:
        version = self.versions.get(name)
        if version is None:
            return
        step = version.variants.step()
        self._resume(list(step.resumed))
        if step.evicted:
            _log.info("model %s, version %d: gives up shapes %s", name.model, name.version, step.evicted)
            self._loader.discard([version.model.compiled.pop(shapes) for shapes in step.evicted])
        if step.compile is not None:
            self._loader.compile(name, version.model.source, step.compile)

    def _resume(self, requests: list[Execute]) -> None:
        if requests:
            self._tell(Resumed(tuple(request.key for request in requests)))
        for request in requests:
            self._queue.push(request)


def _text(shapes: Shapes, version: ShapedVersion) -> str:
    names = [spec.name for spec in version.model.signature.inputs]
    return ", ".join(f"{name} {list(shape)}" for name, shape in zip(names, shapes, strict=True))
