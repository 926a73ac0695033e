"""What batch_size and shape mean."""

import pytest

from common.tensors import TensorSpec
from workers.engine import LoadError
from workers.ports import Port, Shape
from workers.shapes import BatchSize, ShapeOption, ShapePlan, describe, fits, plan


def port(name: str, *shape: int, names: tuple[str, ...] = (), unranked: bool = False) -> Port:
    return Port(TensorSpec(name, "float32", shape, unranked), frozenset({name, *names}))


ONE = (port("x", 1, 3, 4, names=("x:0", "layer")),)
TWO = (port("x", 1, 3), port("y", 1, 3))


@pytest.mark.parametrize(
    ("batch_size", "shape", "expected"),
    [
        (None, None, {}),
        (4, None, {0: (4, 3, 4)}),
        (1, None, {}),
        (None, {"": (2, 3, 4)}, {0: (2, 3, 4)}),
        (None, {"x": (2, 3, 4)}, {0: (2, 3, 4)}),
        (None, {"x:0": (2, 3, 4)}, {0: (2, 3, 4)}),
        (None, {"layer": (-1, 3, 4)}, {0: (-1, 3, 4)}),
        (None, {"x": (1, 3, 4)}, {}),
        (None, {"x": (5,)}, {0: (5,)}),
    ],
)
def test_fixed(batch_size: BatchSize, shape: ShapeOption, expected: dict[int, Shape]) -> None:
    assert plan(ONE, batch_size, shape) == ShapePlan(expected)


@pytest.mark.parametrize(
    ("batch_size", "shape", "expected"),
    [("auto", None, (-1, 3, 4)), (None, "auto", (-1, -1, -1))],
)
def test_auto(batch_size: BatchSize, shape: ShapeOption, expected: Shape) -> None:
    assert plan(ONE, batch_size, shape) == ShapePlan(per_request=(expected,))


def test_every_input_has_the_batch_but_those_without_dimensions() -> None:
    ports = (port("x", 1, 3), port("scalar"), port("any", unranked=True), port("y", 2, 2))
    assert plan(ports, 8, None).fixed == {0: (8, 3), 3: (8, 2)}
    assert plan(ports, "auto", None).per_request == ((-1, 3), (), (), (-1, 2))
    assert plan(ports, None, "auto").per_request == ((-1, -1), (), (), (-1, -1))


def test_what_the_model_leaves_open_by_itself_needs_nothing() -> None:
    ports = (port("x", -1, 3), port("scalar"))
    assert plan(ports, "auto", None) == ShapePlan()
    assert plan(ports, None, "auto").per_request == ((-1, -1), ())


def test_shape_wins_and_says_so() -> None:
    wanted = plan(ONE, 7, {"x": (2, 3, 4)})
    assert wanted.fixed == {0: (2, 3, 4)}
    assert wanted.notes == ("shape is given, so batch_size is not used",)
    assert plan(ONE, "auto", {"x": (2, 3, 4)}).per_request is None
    assert plan(ONE, 7, "auto").per_request == ((-1, -1, -1),)


def test_some_inputs_may_be_named() -> None:
    assert plan(TWO, None, {"y": (5, 3)}).fixed == {1: (5, 3)}


@pytest.mark.parametrize(
    ("ports", "shape", "text"),
    [
        (ONE, {"z": (1,)}, r"shape names 'z', which is no input of the model; it has x$"),
        (TWO, {"": (1, 3)}, r"the model has 2 inputs \(x, y\): shape must name them"),
        ((), {"": (1, 3)}, r"the model has 0 inputs"),
        (ONE, {"x": (1,), "x:0": (1,)}, "shape names the input 'x' twice"),
        ((port("x", names=("t",)), port("y", names=("t",))), {"t": (1,)}, "'t', which is several inputs"),
    ],
)
def test_names_that_are_wrong(ports: tuple[Port, ...], shape: ShapeOption, text: str) -> None:
    with pytest.raises(LoadError, match=text):
        plan(ports, None, shape)


def test_for_people() -> None:
    assert describe(TWO, {0: (1, 3), 1: (2,)}) == "x (1,3), y (2)"


@pytest.mark.parametrize(
    ("promised", "produced", "expected"),
    [
        (TensorSpec("y", "float32", (-1, 3)), TensorSpec("y", "float32", (2, 3)), True),
        (TensorSpec("y", "float32", (-1, 3)), TensorSpec("y", "float32", (2, 4)), False),
        (TensorSpec("y", "float32", (-1, 3)), TensorSpec("y", "float32", (2,)), False),
        (TensorSpec("y", "float32", (2, 3)), TensorSpec("y", "float32", (-1, 3)), False),
        (TensorSpec("y", "float32", (), unranked=True), TensorSpec("y", "float32", (2, 3)), True),
        (TensorSpec("y", "float32", (2,)), TensorSpec("y", "float32", (), unranked=True), False),
        (TensorSpec("y", "float32", (2,)), TensorSpec("y", "int32", (2,)), False),
    ],
)
def test_what_a_variant_gives_out_must_be_what_was_promised(
    promised: TensorSpec, produced: TensorSpec, expected: bool
) -> None:
    assert fits(promised, produced) is expected
