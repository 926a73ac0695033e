"""The real engine: OpenVINO on one device. Only this module and workers.signatures import openvino.

A model is compiled once and owns `nireq` slots; a slot is an infer request with what it is bound to:

    run ──▶ free slot ──set tensors──▶ infer() on the caller's thread         quick, wholly static models on CPU
                                  └──▶ start_async() ─▶ callback ─▶ done      everything else

Five habits of OpenVINO 2026 shape this module, each one seen, each one with its test:

- A tensor over foreign memory does not keep that memory alive once it is set: a slot keeps the numpy views.
- The callback of an asynchronous inference that fails is never called: `poll` finds the failure.
- With one inference thread, infer() swallows exceptions and leaves stale outputs behind: it is used only for graphs in
  which every shape is known, where no shape can turn out wrong.
- Left to itself, it may give the outputs of dynamic shape of several infer requests one memory, which they overwrite
  for each other: each request gets tensors of its own for them.
- Setting the output that is an input passed through replaces that input: such outputs are copied by us.
"""

import contextlib
import logging
import time
from collections import deque
from pathlib import Path

import numpy as np
import openvino as ov

from common.errors import Code
from common.messages import RequestKey
from common.tensors import STORAGE, Signature, TensorSpec
from workers.engine import Array, Done, LoadError, LoadOptions, MemoryId, Run, RunResult, collect, failure
from workers.pace import INLINE_NS, INLINE_PARALLEL_NS, Pace
from workers.properties import host_defaults, stream_defaults, translate, uses_cpu
from workers.reasons import blames_shape, reason_of
from workers.signatures import find_model, is_wholly_static, passed_through, refuse_stateful, signature_of

_WARM_UP_RUNS = 4
_WARM_UP_NS = 50_000_000
_NOBODY = RequestKey("", 0)
_log = logging.getLogger("workers")
_FAILED = "Error occurred during inference execution"


class _Slot:
    """An infer request (made when first needed), what it is bound to, and what it runs."""

    __slots__ = ("done", "memory", "request", "run", "views")

    def __init__(self) -> None:
        self.request: ov.InferRequest | None = None
        self.memory: MemoryId | None = None
        self.views: tuple[object, ...] = ()
        """Keeps the memory behind the request's tensors alive."""
        self.run: Run | None = None
        self.done: Done | None = None


class OpenVinoEngine:
    """OpenVINO on `device`, using `threads` threads of the host when it infers there."""

    def __init__(self, device: str, threads: int, cpu_extension: str = "") -> None:
        self._core = ov.Core()
        self._device = device
        self._threads = threads
        # Weights that stay mapped from the file are a SIGBUS once somebody truncates it to write it anew.
        self._core.set_property({"ENABLE_MMAP": False})
        if cpu_extension:
            self._core.add_extension(cpu_extension)
        self._host = host_defaults(threads) if uses_cpu(device) else {}
        if self._host and device.upper() != "CPU":
            self._core.set_property("CPU", self._host)

    def load(self, path: Path, options: LoadOptions) -> "OpenVinoModel":
        """Read, check and compile the model in a version's directory. Raises LoadError."""
        try:
            model = self._core.read_model(find_model(path))
            refuse_stateful(model)
            compiled = self._core.compile_model(model, self._device, self._properties(options))
            signature = signature_of(compiled)
            limit = self._inline_limit(model, compiled)
            return OpenVinoModel(compiled, signature, passed_through(model), options.nireq, limit)
        except LoadError:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError, but also what its bindings happen to raise
            raise LoadError(reason_of(error)) from error

    def _properties(self, options: LoadOptions) -> dict[str, str]:
        chosen, notes = translate(options.plugin_config)
        if notes:
            _log.info("plugin_config has names of 2020: %s", "; ".join(notes))
        streams = stream_defaults(self._device, options.nireq, self._threads, chosen)
        host = self._host if self._device.upper() == "CPU" else {}
        return {**host, **streams, **chosen}

    def _inline_limit(self, model: ov.Model, compiled: ov.CompiledModel) -> int:
        """Nanoseconds below which runs may be inferred on the caller's thread; 0: never."""
        if self._device.upper() != "CPU" or not is_wholly_static(model):
            return 0
        return INLINE_NS if int(compiled.get_property("NUM_STREAMS")) <= 1 else INLINE_PARALLEL_NS


class OpenVinoModel:
    """A compiled model and its infer requests."""

    def __init__(
        self,
        compiled: ov.CompiledModel,
        signature: Signature,
        passed_through: dict[int, int],
        nireq: int,
        inline_limit_ns: int,
    ) -> None:
        self.signature = signature
        self._compiled: ov.CompiledModel | None = compiled
        self._input_types = [port.get_element_type() for port in compiled.inputs]
        self._output_types = [port.get_element_type() for port in compiled.outputs]
        self._passed_through = passed_through
        self._takes_any_shape = not all(spec.is_static for spec in signature.inputs)
        self._slots = [_Slot() for _ in range(nireq)]
        self._free = deque(self._slots)
        self._pace = Pace(inline_limit_ns)
        if inline_limit_ns:
            self._warm_up()

    def start(self, run: Run, done: Done) -> RunResult | None:
        """See workers.engine.Model."""
        slot = self._free.popleft()
        try:
            request = self._bind(slot, run)
            if self._pace.is_quick:
                request.infer(share_inputs=True, share_outputs=True)
                result = self._collect(request, run)
                self._pace.record(time.monotonic_ns() - run.started)
                self._free.append(slot)
                return result
            slot.run, slot.done = run, done
            request.start_async(share_inputs=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            slot.run = slot.done = None
            self._reset(slot)
            self._free.append(slot)
            return self._failure(error)
        return None

    def poll(self) -> None:
        """See workers.engine.Model."""
        for slot in self._slots:
            run, request = slot.run, slot.request
            if run is None or request is None:
                continue
            try:
                if not request.wait_for(0):
                    continue
                # Ended, and unless it is reported by now it never will be: a request that is started again while its
                # callback is still returning loses the next call.
                result = self._collect(request, run)
            except Exception as error:  # noqa: BLE001 - the inference failed
                result = self._failure(error)
            if slot.run is run:
                self._finish(slot, run, result)

    def release(self, memory: MemoryId) -> None:
        """See workers.engine.Model."""
        for slot in self._slots:
            if slot.memory == memory:
                self._reset(slot)

    def close(self) -> None:
        """See workers.engine.Model."""
        for slot in self._slots:
            self._reset(slot)
        self._compiled = None

    def _bind(self, slot: _Slot, run: Run) -> ov.InferRequest:
        request = slot.request or self._create_request(slot)
        slot.memory = run.memory
        # The views of the last run stay until all tensors are set: some of them are bound until then.
        views = (*run.inputs, *run.outputs)
        slot.views += views
        for index, array in enumerate(run.inputs):
            request.set_input_tensor(index, ov.Tensor(array, ov.Shape(array.shape), self._input_types[index]))
        for index, place in enumerate(run.outputs):
            if place is not None and index not in self._passed_through:
                tensor = ov.Tensor(place, ov.Shape(place.shape), self._output_types[index])
                request.set_output_tensor(index, tensor)
        slot.views = views
        return request

    def _create_request(self, slot: _Slot) -> ov.InferRequest:
        assert self._compiled is not None, "a closed model runs nothing"
        request = slot.request = self._compiled.create_infer_request()
        request.set_callback(self._called_back, slot)
        for index, spec in enumerate(self.signature.outputs):
            if not spec.is_static and index not in self._passed_through:
                empty = ov.Shape([max(0, length) for length in spec.shape] or [0])
                request.set_output_tensor(index, ov.Tensor(self._output_types[index], empty))
        return request

    def _called_back(self, slot: _Slot) -> None:
        """By one of OpenVINO's threads, after an inference that went well."""
        run, request = slot.run, slot.request
        if run is None or request is None:
            return
        try:
            result = self._collect(request, run)
        except Exception as error:  # noqa: BLE001 - nobody would hear of it
            result = self._failure(error)
        self._pace.record(time.monotonic_ns() - run.started)
        self._finish(slot, run, result)

    def _finish(self, slot: _Slot, run: Run, result: RunResult) -> None:
        done = slot.done
        slot.run = slot.done = None
        self._free.append(slot)
        assert done is not None, "a slot that runs something has somebody to tell"
        done(run, result)

    def _collect(self, request: ov.InferRequest, run: Run) -> RunResult:
        produced: list[Array] = []
        for index, place in enumerate(run.outputs):
            source = self._passed_through.get(index)
            if source is not None:
                array = run.inputs[source]
                if place is not None:
                    np.copyto(place, array)
            elif place is not None:
                array = place
            else:
                array = request.get_output_tensor(index).data
            produced.append(array)
        return collect(run, produced)

    def _failure(self, error: Exception) -> RunResult:
        at_fault = self._takes_any_shape and blames_shape(error)
        code = Code.INVALID_ARGUMENT if at_fault else Code.INTERNAL
        return failure(code, f"{_FAILED}: {reason_of(error)}")

    def _reset(self, slot: _Slot) -> None:
        """Forget the infer request with everything that it is bound to; the next run gets a new one."""
        request, slot.request = slot.request, None
        if request is not None:
            # Its destructor waits for the callback's end, holding the lock that the callback needs to end.
            with contextlib.suppress(Exception):
                request.wait()
        del request
        slot.memory = None
        slot.views = ()

    def _warm_up(self) -> None:
        """Measure on zeros, in memory of our own."""
        memory = MemoryId("", -1)
        inputs = [_zeros(spec) for spec in self.signature.inputs]
        outputs = [_zeros(spec) for spec in self.signature.outputs]
        slot = self._slots[0]
        begun = time.monotonic_ns()
        for _ in range(_WARM_UP_RUNS):
            run = Run(_NOBODY, memory, inputs, outputs, time.monotonic_ns())
            self._bind(slot, run).infer(share_inputs=True, share_outputs=True)
            now = time.monotonic_ns()
            self._pace.record(now - run.started)
            if now - begun > _WARM_UP_NS:
                break
        self.release(memory)


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros(spec.shape, STORAGE[spec.dtype])
