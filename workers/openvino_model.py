"""A model that OpenVINO has compiled, and its infer requests.

A slot, of which there are `nireq`, is an infer request with what it is bound to; further ones stay bound to the places
at which runs of a quick model were found to lie:

    run ──▶ infer request of its places ──▶ infer() on the caller's thread        quick, wholly static models on CPU
       └──▶ free slot ──set tensors──▶ start_async() ─▶ callback ─▶ done          everything else

Six habits of OpenVINO 2026 shape this module, each one seen, each one with its test:

- A tensor over foreign memory does not keep that memory alive once it is set: a slot keeps the numpy views.
- The callback of an asynchronous inference that fails is never called: `poll` finds the failure.
- With one inference thread and an executor of the model's own, infer() swallows exceptions and leaves stale outputs
  behind: it is used only for graphs in which every shape is known, where no shape can turn out wrong.
- Left to itself, it may give the outputs of dynamic shape of several infer requests one memory, which they overwrite
  for each other: each request gets tensors of its own for them.
- A compiled model that ends waits for its threads while it holds Python's lock, which they need to destroy the callback
  of an infer request that they are the last to hold: the callbacks' end is awaited first.
- Setting the output that is an input passed through replaces that input: such outputs are copied by us.
- StringTensorUnpack of a tensor without elements does nothing, and what it gave the request before is taken for its
  result: such inputs are refused.
"""

import contextlib
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast

import numpy as np

import workers.openvino_api as ov
from common.dtypes import STORAGE
from common.errors import Code
from common.messages import RequestKey
from common.strings import StringTensor
from common.tensors import STRING, Signature, TensorSpec
from workers.engine import (
    Array,
    Binding,
    Done,
    MemoryId,
    Place,
    Run,
    RunResult,
    all_in_place,
    collect,
    failure,
)
from workers.openvino_bound import Bound, BoundRequests
from workers.openvino_strings import StringCodec
from workers.pace import Pace
from workers.reasons import blames_shape, reason_of

_Tensors: TypeAlias = tuple[list[tuple[int, ov.Tensor]], list[tuple[int, ov.Tensor]]]
"""Of inputs and of outputs, by index."""

_LET_GO_S = 10.0
"""For OpenVINO's threads to let go of infer requests that have ended: a matter of microseconds."""
_LOOK_S = 0.0005

_WARM_UP_RUNS = 4
_WARM_UP_NS = 50_000_000
_NOBODY = RequestKey("", 0)
_FAILED = "Error occurred during inference execution"
_NO_STRINGS = "A tensor of strings must have elements: OpenVINO does nothing with one that has none"


class _Slot:
    """An infer request (made when first needed), what it is bound to, and what it runs."""

    __slots__ = ("binding", "done", "memory", "request", "run")

    def __init__(self) -> None:
        self.request: ov.InferRequest | None = None
        self.memory: MemoryId | None = None
        self.binding: Binding | None = None
        """What the request's tensors are set to. Keeps the memory behind them alive."""
        self.run: Run | None = None
        self.done: Done | None = None


class _Callback:
    """Of one infer request. An object of its own, so that its end can be seen."""

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: Callable[[_Slot], None]) -> None:
        self._call = call

    def __call__(self, slot: _Slot) -> None:
        self._call(slot)


class OpenVinoModel:
    """A compiled model and its infer requests."""

    def __init__(
        self,
        compiled: ov.CompiledModel,
        signature: Signature,
        passed_through: dict[int, int],
        nireq: int,
        inline_limit_ns: int,
        notes: tuple[str, ...] = (),
        strings: StringCodec | None = None,
    ) -> None:
        """`inline_limit_ns`: runs quicker than this may be inferred on the caller's thread; 0: none, as it must be for
        a model that has strings, for which alone `strings` is needed."""
        self.signature = signature
        self.notes = notes
        self._compiled: ov.CompiledModel | None = compiled
        self._input_types = [port.get_element_type() for port in compiled.inputs]
        self._output_types = [port.get_element_type() for port in compiled.outputs]
        self._strings = strings
        self._passed_through = passed_through
        self._takes_any_shape = not all(spec.has_static_shape for spec in signature.inputs)
        self._slots = [_Slot() for _ in range(nireq)]
        self._free = deque(self._slots)
        self._callbacks: list[weakref.ref[_Callback]] = []
        """Those that OpenVINO may hold still."""
        self._bound = BoundRequests(signature)
        """For runs within `start`. None of them has a callback."""
        self._pace = Pace(inline_limit_ns)
        if inline_limit_ns:
            self._warm_up()

    @property
    def is_quick(self) -> bool:
        """Whether runs are inferred within `start`, for they take less than the limit."""
        return self._pace.is_quick

    @property
    def quickest(self) -> int:
        """Nanoseconds of the quickest of the latest runs; 0 where none was measured."""
        return self._pace.quickest

    def let_one_wait(self) -> None:
        """Take one run more at once, which waits within OpenVINO for one of its streams. Before any run is started."""
        slot = _Slot()
        self._slots.append(slot)
        self._free.append(slot)

    @property
    def nireq(self) -> int:
        """See workers.engine.Model."""
        return len(self._slots)

    def start(self, run: Run, done: Done) -> RunResult | None:
        """See workers.engine.Model."""
        if self._pace.is_quick:
            return self._infer(run)
        if self._strings is not None and any(
            isinstance(one, StringTensor) and not one.size for one in run.inputs
        ):
            return failure(Code.INVALID_ARGUMENT, _NO_STRINGS)
        slot = self._free.popleft()
        try:
            request = self._bind(slot, run)
            slot.run, slot.done = run, done
            request.start_async(**ov.START_OPTIONS)
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
        self._bound.release(memory)

    def close(self) -> None:
        """See workers.engine.Model."""
        for slot in self._slots:
            self._reset(slot)
        self._bound.clear()
        self._await_callbacks()
        self._compiled = None

    def _await_callbacks(self) -> None:
        """Until OpenVINO has let go of every infer request.

        The thread that ran one may be the last that holds it, and needs Python's lock to destroy its callback; the end
        of the compiled model holds that lock and waits for the thread.
        """
        ends = time.monotonic() + _LET_GO_S
        while any(callback() is not None for callback in self._callbacks) and time.monotonic() < ends:
            time.sleep(_LOOK_S)
        self._callbacks.clear()

    # ---- within the call

    def _infer(self, run: Run) -> RunResult:
        try:
            bound = self._bound.find(run.binding) or self._bind_anew(run)
            bound.infer(*ov.INFER_ARGUMENTS)
            result = bound.result
            if result is None:
                result = self._collect(bound.request, run)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._bound.forget(run.binding)
            return self._failure(error)
        run.ended = time.monotonic_ns()
        self._pace.record(run.ended - run.started)
        return result

    def _bind_anew(self, run: Run) -> Bound:
        """An infer request for the places of this run: a new one, or the one that was used the longest ago."""
        given_up = self._bound.give_up()
        request = self._new_request() if given_up is None else given_up[1].request
        self._set_tensors(request, run.binding)
        bound = Bound(request, run.memory, self._result_of(run.binding))
        self._bound.keep(run.binding, bound)
        return bound

    def _result_of(self, binding: Binding) -> RunResult | None:
        """Of every run at these places that goes well, where nothing has to be copied after it."""
        if self._passed_through:
            return None
        shapes = [place.shape for place in binding.outputs if place is not None]
        return all_in_place(tuple(shapes)) if len(shapes) == len(binding.outputs) else None

    # ---- by a slot

    def _bind(self, slot: _Slot, run: Run) -> ov.InferRequest:
        request = slot.request or self._create_request(slot)
        binding = run.binding
        if slot.binding is binding:
            return request
        slot.memory = run.memory
        self._set_tensors(request, binding)
        # Only now, because some tensors of the last binding were set until here.
        slot.binding = binding
        return request

    def _set_tensors(self, request: ov.InferRequest, binding: Binding) -> None:
        if binding.tensors is None:
            binding.tensors = self._tensors(binding)
        inputs, outputs = cast("_Tensors", binding.tensors)
        for index, tensor in inputs:
            request.set_input_tensor(index, tensor)
        for index, tensor in outputs:
            request.set_output_tensor(index, tensor)

    def _tensors(self, binding: Binding) -> "_Tensors":
        inputs = [(index, self._input_tensor(index, array)) for index, array in enumerate(binding.inputs)]
        outputs = [
            (index, ov.Tensor(place, ov.Shape(place.shape), self._output_types[index]))
            for index, place in enumerate(binding.outputs)
            if place is not None and index not in self._passed_through
        ]
        return inputs, outputs

    def _input_tensor(self, index: int, array: Place) -> ov.Tensor:
        if isinstance(array, StringTensor):
            return self._codec.pack(array)
        return ov.Tensor(array, ov.Shape(array.shape), self._input_types[index])

    @property
    def _codec(self) -> StringCodec:
        assert self._strings is not None, "a model that has strings is given what reads them"
        return self._strings

    def _create_request(self, slot: _Slot) -> ov.InferRequest:
        request = slot.request = self._new_request()
        callback = _Callback(self._called_back)
        self._callbacks = [one for one in self._callbacks if one() is not None] + [weakref.ref(callback)]
        request.set_callback(callback, slot)
        return request

    def _new_request(self) -> ov.InferRequest:
        assert self._compiled is not None, "a closed model runs nothing"
        request = self._compiled.create_infer_request()
        for index, spec in enumerate(self.signature.outputs):
            if not spec.is_static and index not in self._passed_through:
                empty = ov.Shape([max(0, length) for length in spec.shape] or [0])
                request.set_output_tensor(index, ov.Tensor(self._output_types[index], empty))
        return request

    def _called_back(self, slot: _Slot) -> None:
        """By one of OpenVINO's threads, after an inference that went well."""
        ov.keep_thread_state()
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
        produced: list[Place] = []
        for index, place in enumerate(run.outputs):
            source = self._passed_through.get(index)
            if source is not None:
                array = run.inputs[source]
                if place is not None:
                    np.copyto(place, cast("Array", array))
            elif place is not None:
                array = place
            elif self.signature.outputs[index].dtype == STRING:
                array = self._codec.unpack(request.get_output_tensor(index))
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
        slot.binding = None

    def _warm_up(self) -> None:
        """Measure on zeros, in memory of our own."""
        memory = MemoryId("", -1)
        binding = Binding(
            [_zeros(spec) for spec in self.signature.inputs],
            [_zeros(spec) for spec in self.signature.outputs],
        )
        run = Run(_NOBODY, memory, binding, time.monotonic_ns())
        begun = run.started
        bound = self._bind_anew(run)
        for _ in range(_WARM_UP_RUNS):
            bound.infer(*ov.INFER_ARGUMENTS)
            now = time.monotonic_ns()
            self._pace.record(now - run.started)
            if now - begun > _WARM_UP_NS:
                break
            run.started = now
        self.release(memory)


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros(spec.shape, STORAGE[spec.dtype])
