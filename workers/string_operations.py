"""Which models with strings can be served: OpenVINO's CPU plugin takes some that it does wrong.

What is said of it here was seen with OpenVINO 2026.4. Bodies of loops and branches are not looked into.
"""

from typing import Any

import workers.openvino_api as ov
from common.tensors import STRING
from workers.engine import LoadError

_ON_STRINGS = {
    *("Parameter", "Constant", "Result", "StringTensorPack", "StringTensorUnpack"),
    *("ShapeOf", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Gather"),
}
"""OpenVINO's own operations that were seen to do right by strings on the CPU. Others copy them byte by byte, pointers
and all, and the process ends: Slice, StridedSlice and Split do."""

_KEEP_COUNT = {"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat"}
"""Operations on strings of which something comes out if something goes in."""


def refuse_operations_on_strings(model: ov.Model) -> None:
    """Raises LoadError for a model whose strings OpenVINO would not come right by."""
    _refuse_unreliable(model)
    _refuse_unpacking_of_nothing(model)


def _refuse_unreliable(model: ov.Model) -> None:
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind in _ON_STRINGS or not any(
            _is_string(port) for port in (*node.input_values(), *node.outputs())
        ):
            continue
        # What an extension brings is made for strings, if it takes them.
        if str(node.get_type_info().version_id).startswith("opset"):
            raise LoadError(
                f"the model has the operation {kind} on strings ({node.get_friendly_name()}), which OpenVINO does not "
                f"do reliably; on strings it may have {', '.join(sorted(_ON_STRINGS))}, and extensions"
            )


def _refuse_unpacking_of_nothing(model: ov.Model) -> None:
    """StringTensorUnpack of no elements does nothing: what it gives then is an earlier request's.

    For inputs that is refused with the request. Strings that come to nothing within the model cannot be seen.
    """
    unpacking = [node for node in model.get_ops() if node.get_type_name() == "StringTensorUnpack"]
    waiting = [node.input_value(0) for node in unpacking]
    seen = set()
    while waiting:
        port = waiting.pop()
        node, shape = port.get_node(), port.get_partial_shape()
        kind, name = node.get_type_name(), node.get_friendly_name()
        if (
            name in seen
            or kind in ("Parameter", "Constant")
            or (shape.is_static and 0 not in shape.to_shape())
        ):
            continue
        seen.add(name)
        if kind not in _KEEP_COUNT:
            raise LoadError(
                f"the model has the operation StringTensorUnpack on what {kind} ({name}) gives, which may be no "
                "strings at all: OpenVINO would then answer with an earlier request's"
            )
        waiting += [value for value in node.input_values() if _is_string(value)]


def _is_string(port: Any) -> bool:
    return bool(port.get_element_type().get_type_name() == STRING)
