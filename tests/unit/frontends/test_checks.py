"""frontends.checks: the texts that clients know, and a layout in which nothing overlaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.allocator import ALIGNMENT
from common.dtypes import STORAGE
from common.errors import InvalidArgumentError
from common.tensors import Signature, TensorSpec, byte_size
from frontends.checks import check_names, check_shape, plan_layout
from frontends.interface import InputTensor


def tensor(shape: tuple[int, ...] = (1, 4), dtype: str = "float32") -> InputTensor:
    return InputTensor(dtype, np.zeros(shape, STORAGE[dtype]))


def signature(*names: str, shape: tuple[int, ...] = (1, 4)) -> Signature:
    return Signature(tuple(TensorSpec(name, "float32", shape) for name in names), ())


def refusal(signature: Signature, inputs: dict[str, InputTensor]) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        plan_layout(signature, inputs)
    return caught.value.message


def test_an_unknown_input() -> None:
    assert refusal(signature("data"), {"x": tensor()}) == (
        "input tensor alias not found in signature: ['x']. Inputs expected to be in the set {['data']}."
    )


def test_unknown_inputs_beside_known_ones() -> None:
    assert refusal(signature("a", "b"), {"a": tensor(), "y": tensor(), "b": tensor(), "x": tensor()}) == (
        "input tensor alias not found in signature: ['y', 'x']. Inputs expected to be in the set {['a', 'b']}."
    )


@pytest.mark.parametrize("given_names", [(), ("b",)])
def test_missing_inputs_are_named(given_names: tuple[str, ...]) -> None:
    missing = [name for name in ("a", "b", "c") if name not in given_names]
    text = refusal(signature("a", "b", "c"), {name: tensor() for name in given_names})
    assert text == f"Missing inputs: {missing}. Inputs expected to be in the set {{['a', 'b', 'c']}}."


def test_a_model_without_inputs_takes_none() -> None:
    check_names(signature(), {})
    assert "['x']" in refusal(signature(), {"x": tensor()})


@pytest.mark.parametrize(
    ("wanted", "came"),
    [
        ((1, 3, 4, 4), (2, 3, 4, 4)),
        ((8, 4), (1, 4)),
        ((1,), (5,)),
        ((1, -1), (0, 7)),
    ],
)
def test_a_wrong_batch(wanted: tuple[int, ...], came: tuple[int, ...]) -> None:
    assert refusal(signature("x", shape=wanted), {"x": tensor(came)}) == (
        f"Input batch size is incorrect. Obtained batch size {came[0]}, required batch size {wanted[0]}"
    )


@pytest.mark.parametrize(
    ("wanted", "came"),
    [
        ((1, 3, 4, 4), (1, 3, 4, 5)),
        ((1, 3, 4, 4), (2, 3, 4, 5)),
        ((1, 3, 4, 4), (1, 3, 4)),
        ((1, 3, 4, 4), ()),
        ((-1, 4), (7, 5)),
        ((-1, 4), (4,)),
        ((), (1,)),
        ((2, -1, 3), (2, 9, 4)),
    ],
)
def test_a_wrong_shape(wanted: tuple[int, ...], came: tuple[int, ...]) -> None:
    assert refusal(signature("x", shape=wanted), {"x": tensor(came)}) == (
        f"The input data is incorrect. Obtained shape {list(came)}, required shape {list(wanted)}"
    )


@pytest.mark.parametrize(
    ("wanted", "came"), [((-1, 4), (0, 4)), ((-1, 4), (9, 4)), ((-1, -1), (3, 5)), ((), ()), ((2, 3), (2, 3))]
)
def test_shapes_that_fit(wanted: tuple[int, ...], came: tuple[int, ...]) -> None:
    check_shape(TensorSpec("x", "float32", wanted), came)


@pytest.mark.parametrize("came", [(), (1,), (1, 2, 3)])
def test_without_a_rank_every_shape_fits(came: tuple[int, ...]) -> None:
    check_shape(TensorSpec("x", "float32", (), unranked=True), came)


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16", "int8", "bool"])
def test_types_that_are_converted(dtype: str) -> None:
    layout = plan_layout(signature("x"), {"x": tensor(dtype=dtype)})
    assert layout.inputs[0].shape == (1, 4)
    assert layout.size == ALIGNMENT, "room for the model's type"


def test_a_type_that_is_not_converted_is_named_with_the_models() -> None:
    integers = Signature((TensorSpec("x", "int32", (1, 4)),), ())
    text = refusal(integers, {"x": tensor(dtype="float32")})
    assert "float32" in text
    assert "int32" in text
    assert "'x'" in text


def test_inputs_are_placed_in_the_signatures_order() -> None:
    two = Signature((TensorSpec("a", "float32", (-1,)), TensorSpec("b", "uint8", (-1,))), ())
    layout = plan_layout(two, {"b": tensor((3,), "uint8"), "a": tensor((17,))})
    assert [ref.shape for ref in layout.inputs] == [(17,), (3,)]
    assert layout.inputs[1].offset == 2 * ALIGNMENT


def test_room_is_kept_for_outputs_of_known_size_alone() -> None:
    outputs = (
        TensorSpec("a", "float32", (1, 1000)),
        TensorSpec("b", "float32", (-1, 4)),
        TensorSpec("c", "float64", (), unranked=True),
        TensorSpec("d", "int64", ()),
    )
    layout = plan_layout(Signature((TensorSpec("x", "float32", (1, 4)),), outputs), {"x": tensor()})
    assert [ref.nbytes for ref in layout.outputs] == [4000, 0, 0, 8]
    assert layout.size == ALIGNMENT + 4032 + ALIGNMENT


dtypes = st.sampled_from(sorted(STORAGE))
shapes = st.lists(st.integers(0, 6), max_size=4).map(tuple)


@given(st.lists(st.tuples(dtypes, shapes), max_size=5), st.lists(st.tuples(dtypes, shapes), max_size=5))
@settings(max_examples=100, deadline=None)
def test_nothing_overlaps_and_everything_is_aligned(
    inputs: list[tuple[str, tuple[int, ...]]], outputs: list[tuple[str, tuple[int, ...]]]
) -> None:
    specs = [
        tuple(TensorSpec(f"t{number}", dtype, shape) for number, (dtype, shape) in enumerate(some))
        for some in (inputs, outputs)
    ]
    made = Signature(specs[0], specs[1])
    layout = plan_layout(made, {spec.name: tensor(spec.shape, spec.dtype) for spec in made.inputs})
    spans = [
        (ref.offset, byte_size(spec.dtype, ref.shape))
        for spec, ref in zip(made.inputs, layout.inputs, strict=True)
    ] + [(ref.offset, ref.nbytes) for ref in layout.outputs]
    end = 0
    for offset, length in sorted(span for span in spans if span[1]):
        assert offset % ALIGNMENT == 0
        assert offset >= end
        end = offset + length
    assert end <= layout.size
