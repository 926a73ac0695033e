"""From a model that OpenVINO has read to compiled ones, and the version of which each request brings its shapes."""

from collections.abc import Mapping

import workers.openvino_api as ov
from common.tensors import STRING, Heads, Signature
from workers.compile_cache import CompileCache
from workers.engine import ShapeError
from workers.openvino_model import OpenVinoModel
from workers.openvino_strings import StringCodec
from workers.pace import INLINE_NS, INLINE_PARALLEL_NS
from workers.ports import Shapes
from workers.reasons import reason_of
from workers.shapes import fits
from workers.signatures import (
    Ports,
    compiled_signature,
    is_wholly_static,
    open_signature,
    passed_through,
    reshape,
)

_ADVISED = "OPTIMAL_NUMBER_OF_INFER_REQUESTS"
_SHORT_NS = 100_000_000
"""Below this, a model with several streams is given one request more than OpenVINO advises, which waits inside it.

When a run ends, its stream stands idle until Python has heard of it and has started the next, a part of a millisecond,
unless the next is there already. The longer the runs are, the less is gained; and the clock of the inference timeout
goes on while one waits, of which no more than so much is to be taken away.
"""


class Compiler:
    """Compiles one version's model, in whatever shape it has, always for the same device and number of requests."""

    def __init__(
        self,
        core: ov.Core,
        device: str,
        properties: dict[str, str],
        nireq: int | None,
        ports: tuple[Ports, Ports],
        heads: Heads,
        strings: StringCodec | None = None,
        quick: Mapping[str, str] | None = None,
    ) -> None:
        """`strings`: for models that have some, see `has_strings`.

        `quick`: further properties for a model that turns out to be quick, of which one request is inferred at once
        then; none where that is not for the worker to decide.
        """
        self._core = core
        self._device = device
        self._properties = properties
        self._nireq = nireq
        self.ports = ports
        self.heads = heads
        self._strings = strings
        self._quick = dict(quick or {})

    def compile(
        self, model: ov.Model, cache: CompileCache | None = None, notes: tuple[str, ...] = ()
    ) -> OpenVinoModel:
        """Compile it as it is. Raises whatever OpenVINO raises."""
        made = self._compile(model, cache, notes, self._properties)
        if self._quick and made.is_quick:
            # A run within `start` overlaps with no other, and is quicker where OpenVINO has one stream alone.
            made.close()
            self._nireq = 1
            made = self._compile(model, cache, notes, {**self._properties, **self._quick})
        elif self._nireq is None and made.nireq > 1 and 0 < made.quickest < _SHORT_NS:
            made.let_one_wait()
        return made

    def _compile(
        self,
        model: ov.Model,
        cache: CompileCache | None,
        notes: tuple[str, ...],
        properties: dict[str, str],
    ) -> OpenVinoModel:
        if cache is None:
            compiled = self._core.compile_model(model, self._device, properties)
        else:
            with cache.properties() as cached:
                compiled = self._core.compile_model(model, self._device, {**cached, **properties})
        signature = compiled_signature(compiled, self.ports, self.heads)
        nireq = int(compiled.get_property(_ADVISED)) if self._nireq is None else self._nireq
        limit = self._inline_limit(model, compiled)
        return OpenVinoModel(compiled, signature, passed_through(model), nireq, limit, notes, self._strings)

    def _inline_limit(self, model: ov.Model, compiled: ov.CompiledModel) -> int:
        """Nanoseconds below which runs may be inferred on the caller's thread; 0: never."""
        if self._device.upper() != "CPU" or self._strings is not None or not is_wholly_static(model):
            return 0
        overlaps = self._nireq is not None and int(compiled.get_property("NUM_STREAMS")) > 1
        return INLINE_PARALLEL_NS if overlaps else INLINE_NS


def has_strings(ports: Ports) -> bool:
    """Whether one of these inputs or outputs is a tensor of strings."""
    return any(port.spec.dtype == STRING for port in ports)


class OpenVinoVariants:
    """See workers.engine.VariableModel. Keeps the model as it was read, beside what is compiled of it."""

    def __init__(self, model: ov.Model, compiler: Compiler, shapes: Shapes, first: OpenVinoModel) -> None:
        """`first` is the model compiled as it was read, `shapes` what its inputs are open to."""
        own = tuple(spec.shape for spec in first.signature.inputs)
        is_static = all(spec.has_static_shape for spec in first.signature.inputs)
        if not is_static:
            # It was compiled so that what would fail every request has failed already.
            first.close()
        self.notes = first.notes
        self._first = (own, first) if is_static else None
        self._compiler = compiler
        self._model: ov.Model | None = model
        self.signature: Signature = open_signature(model, shapes, compiler.ports, compiler.heads)

    def take_first(self) -> tuple[Shapes, OpenVinoModel] | None:
        """See workers.engine.VariableModel."""
        first, self._first = self._first, None
        return first

    def compile(self, shapes: Shapes) -> OpenVinoModel:
        """See workers.engine.VariableModel. Without the cache on disk, which clients could fill at will."""
        assert self._model is not None, "a closed model is not compiled"
        try:
            reshape(self._model, dict(enumerate(shapes)))
            variant = self._compiler.compile(self._model)
        except Exception as error:
            raise ShapeError(reason_of(error)) from error
        for promised, own in zip(self.signature.outputs, variant.signature.outputs, strict=True):
            if not fits(promised, own):
                variant.close()
                raise ShapeError(f"output {own.name!r} would have the shape {list(own.shape)}")
        return variant

    def close(self) -> None:
        """See workers.engine.VariableModel."""
        self._model = None
