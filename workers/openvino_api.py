"""The one place that knows which OpenVINO this is: what the other modules use of it, by the same names in all releases.

From 2023 on, everything is in the package `openvino`; in 2022 it is in `openvino.runtime`. The differences in behaviour
that matter here are few, and each has a function below.
"""

import ctypes
import inspect
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

# Since 2023 the package ends by importing its model converter, and does without where there is none. Nothing here
# converts: a fifth of a worker's start, and 8 MB, are spared by making that import fail.
_CONVERTER = "openvino.tools.ovc"
_converter_is_hidden = _CONVERTER not in sys.modules
if _converter_is_hidden:
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # documented: such an import raises ImportError

try:
    from openvino import (
        CompiledModel,
        ConstOutput,
        Core,
        InferRequest,
        Model,
        PartialShape,
        Shape,
        Tensor,
        Type,
        get_version,
    )
except ImportError:
    from openvino.runtime import (
        CompiledModel,
        ConstOutput,
        Core,
        InferRequest,
        Model,
        PartialShape,
        Shape,
        Tensor,
        Type,
        get_version,
    )
finally:
    if _converter_is_hidden:
        del sys.modules[_CONVERTER]

__all__ = [
    "CompiledModel",
    "ConstOutput",
    "Core",
    "InferRequest",
    "Model",
    "PartialShape",
    "Shape",
    "Tensor",
    "Type",
    "release",
]

_NAMES_PINNING = "ENABLE_CPU_PINNING"
_SHARED_EXECUTOR = "EXCLUSIVE_ASYNC_REQUESTS"
_STATES = {"ReadValue", "Assign"}


def release() -> str:
    """Which OpenVINO this is, e.g. `2026.4.1`."""
    return str(get_version()).partition("-")[0]


def _takes_share_options() -> bool:
    """Releases before 2023.2 have no such options: they copy outputs into a dictionary that nobody looks at."""
    return "share_outputs" in inspect.signature(InferRequest.infer).parameters


START_OPTIONS: dict[str, Any] = {"share_inputs": True} if _takes_share_options() else {}
"""For InferRequest.start_async: copy nothing."""


def _bare_arguments(signature: str) -> tuple[Any, ...] | None:
    """What the binding beneath InferRequest.infer is to be called with, by the text in which it describes itself.

    No inputs, since they are set; where there is a choice, outputs are not copied into the dictionary, at which nobody
    looks. None where the binding is of a kind that was never seen.
    """
    known: dict[tuple[str, ...], tuple[Any, ...]] = {
        ("inputs", "share_outputs", "decode_strings"): ({}, True, True),
        ("inputs", "share_outputs"): ({}, True),
        ("inputs",): ({},),
    }
    of_dictionaries = re.search(r"infer\(self: [\w.]+, (inputs: [dD]ict.*)\) -> ", signature)
    if of_dictionaries is None:
        return None
    # Types have commas of their own, but no colons.
    return known.get(tuple(re.findall(r"(\w+): ", of_dictionaries[1])))


_BINDING = next(kind for kind in reversed(InferRequest.__mro__) if "infer" in vars(kind))
"""Of the bindings, beneath the package's class, whose `infer` spends a microsecond on inputs that are not given."""
_BARE = _bare_arguments(_BINDING.infer.__doc__ or "")
_OPTIONS: dict[str, Any] = {"share_inputs": True, "share_outputs": True} if _takes_share_options() else {}

INFER_ARGUMENTS: tuple[Any, ...] = () if _BARE is None else _BARE
"""For what `infer_of` returns."""


def infer_of(request: InferRequest) -> Callable[..., object]:
    """To be called with INFER_ARGUMENTS: infers within the call, with the tensors that are set, and copies nothing."""
    if _BARE is None:
        return partial(request.infer, **_OPTIONS)
    bare: Callable[..., object] = _BINDING.infer.__get__(request)
    return bare


_thread = threading.local()


def keep_thread_state() -> None:
    """Have Python keep the state of the calling thread, one of OpenVINO's, for as long as the process lives.

    The binding makes one for each callback otherwise, and ends it after it. With it a piece of memory is mapped and
    unmapped, and each time all cores on which OpenVINO infers at that moment are interrupted.
    """
    if not getattr(_thread, "is_kept", False):
        # Never released: what the binding then finds is not its own to end.
        ctypes.pythonapi.PyGILState_Ensure()
        _thread.is_kept = True


def read_whole_files(core: Core) -> None:
    """Have weights read into memory; 2022 knows no other way, nor the property.

    Weights that stay mapped from their file are a SIGBUS once somebody truncates it to write it anew.
    """
    if not release().startswith("2022."):
        core.set_property({"ENABLE_MMAP": False})


def pinning_off(core: Core) -> dict[str, str]:
    """The property by which the CPU plugin leaves the affinity of its threads alone."""
    return {_NAMES_PINNING: "NO"} if _knows(core, _NAMES_PINNING) else {"AFFINITY": "NONE"}


def shared_executor(core: Core) -> dict[str, str]:
    """The property by which compiled models run on one executor of the plugin's, not each on one of its own.

    Nothing where the release does not say that it knows it: it is among those that OpenVINO has for its own use.
    """
    try:
        known = core.get_property("CPU", "INTERNAL_SUPPORTED_PROPERTIES")
    except Exception:  # noqa: BLE001 - 2022 has no such list
        return {}
    return {_SHARED_EXECUTOR: "YES"} if _SHARED_EXECUTOR in known else {}


def old_names(core: Core) -> frozenset[str]:
    """Properties of 2020 that this release takes under that name and no other."""
    return frozenset() if _knows(core, _NAMES_PINNING) else frozenset({"CPU_BIND_THREAD"})


def variables(model: Model) -> int:
    """How many things a model remembers between inferences; 2022 does not list them."""
    if hasattr(model, "get_variables"):
        return len(model.get_variables())
    return sum(node.get_type_name() in _STATES for node in model.get_ops())


def string_graphs() -> tuple[Model, Model]:
    """Offsets of beginnings, of ends, and bytes → strings, and back, of one dimension each.

    Raises ImportError where the operations are missing, which came with opset 15.
    """
    from openvino import opset15 as op

    length = PartialShape([-1])
    parts = [op.parameter(length, kind) for kind in (Type.i64, Type.i64, Type.u8)]
    strings = op.parameter(length, Type.string)
    unpacked = op.string_tensor_unpack(strings)
    return (
        Model([op.result(op.string_tensor_pack(*parts))], parts),
        Model([op.result(unpacked.output(index)) for index in range(3)], [strings]),
    )


def _knows(core: Core, name: str) -> bool:
    return name in core.get_property("CPU", "SUPPORTED_PROPERTIES")
