"""What of OpenVINO's texts reaches people."""

import pytest

from workers.reasons import blames_shape, reason_of

SHAPE = """Exception from src/inference/src/cpp/infer_request.cpp:246:
Exception from src/bindings/python/src/pyopenvino/core/infer_request.cpp:445:
Caught exception: Exception from src/plugins/intel_cpu/src/node.cpp:794:
[CPU] Add node with name 'block/Add_3' Check 'input_shape[j] == 1' failed at src/plugins/intel_cpu/eltwise.cpp:52:
Eltwise shape infer input shapes dim index: 0 mismatch



"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHAPE, "[CPU] Add node with name 'block/Add_3': Eltwise shape infer input shapes dim index: 0 mismatch"),
        (
            "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/a/config.cpp:505:\n"
            "NotFound: Unsupported property FOO by CPU plugin.\n\n",
            "NotFound: Unsupported property FOO by CPU plugin.",
        ),
        ('Cannot load library "/opt/some/where/libx.so": libOpenCL.so.1: cannot open',
         'Cannot load library "libx.so": libOpenCL.so.1: cannot open'),
        ("bad pointer 0x7f8e23d5eca0 given", "bad pointer (address) given"),
        ("", "RuntimeError"),
    ],
)  # fmt: skip
def test_the_reason_alone(text: str, expected: str) -> None:
    assert reason_of(RuntimeError(text)) == expected


def test_texts_are_bounded() -> None:
    assert len(reason_of(RuntimeError("x " * 10_000))) <= 600


def test_shapes_are_blamed() -> None:
    assert blames_shape(RuntimeError(SHAPE))
    assert not blames_shape(RuntimeError("std::bad_alloc"))
