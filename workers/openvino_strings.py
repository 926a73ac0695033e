"""OpenVINO's tensors of strings, made and read byte for byte.

Its Python bindings carry strings by numpy's `S` type, and that does not do. Seen with OpenVINO 2026.4: zeros at the end
of a string are lost both ways; one long string makes every other element as long; empty strings set from an array
become whatever lies in memory; and a tensor without elements, when it is read, raises TypeError or ends the process,
again by what lies in memory. `infer` reads outputs of strings by that very way, asked or not.

So two small graphs do it, StringTensorPack and StringTensorUnpack on the CPU, which take and give what
common.strings.StringTensor holds, and they are run by `start_async`, as is every model that has strings.
"""

import threading
from math import prod

import numpy as np

import workers.openvino_api as ov
from common.strings import StringTensor, empty


class StringCodec:
    """Between StringTensor and OpenVINO's tensors. Any thread may call it; calls of one kind take turns."""

    def __init__(self, core: ov.Core) -> None:
        """Raises ImportError where this OpenVINO has no operations on strings."""
        pack, unpack = ov.string_graphs()
        properties = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1", **ov.pinning_off(core)}
        self._packing = core.compile_model(pack, "CPU", properties).create_infer_request()
        self._unpacking = core.compile_model(unpack, "CPU", properties).create_infer_request()
        self._pack_lock = threading.Lock()
        self._unpack_lock = threading.Lock()

    def pack(self, strings: StringTensor) -> ov.Tensor:
        """A tensor with copies of the strings."""
        shape = ov.Shape(strings.shape)
        if not strings.symbols.size:
            return ov.Tensor(
                ov.Type.string, shape
            )  # of empty strings; the graph takes no tensor without elements
        packed = ov.Tensor(ov.Type.string, ov.Shape([strings.size]))
        with self._pack_lock:
            parts = (strings.offsets[:-1], strings.offsets[1:], strings.symbols)
            for index, part in enumerate(parts):
                self._packing.set_input_tensor(index, _tensor(part))
            self._packing.set_output_tensor(0, packed)
            _run(self._packing)
            # What lies in a request's memory is not to be referred to any longer, nor is what was made of it.
            for index, part in enumerate(parts):
                self._packing.set_input_tensor(index, _tensor(np.zeros(0, part.dtype)))
            self._packing.set_output_tensor(0, ov.Tensor(ov.Type.string, ov.Shape([0])))
        packed.set_shape(shape)
        return packed

    def unpack(self, tensor: ov.Tensor) -> StringTensor:
        """Copies of the strings in a tensor, which is nobody else's meanwhile."""
        shape = tuple(tensor.get_shape())
        count = prod(shape)
        if not count:
            return empty(shape)
        tensor.set_shape(ov.Shape([count]))
        try:
            with self._unpack_lock:
                self._unpacking.set_input_tensor(0, tensor)
                _run(self._unpacking)
                offsets = np.zeros(count + 1, np.int64)
                offsets[1:] = self._unpacking.get_output_tensor(1).data
                symbols = self._unpacking.get_output_tensor(2).data.copy()
                self._unpacking.set_input_tensor(0, ov.Tensor(ov.Type.string, ov.Shape([0])))
        finally:
            tensor.set_shape(ov.Shape(shape))
        if int(offsets[-1]) != symbols.size:
            raise ValueError(f"{symbols.size} bytes of strings, which are more than can be told apart")
        return StringTensor(shape, offsets, symbols)


def _tensor(array: np.ndarray) -> ov.Tensor:
    kind = ov.Type.i64 if array.dtype == np.int64 else ov.Type.u8
    return ov.Tensor(array, ov.Shape(array.shape), kind)


def _run(request: ov.InferRequest) -> None:
    request.start_async(**ov.START_OPTIONS)
    request.wait()
