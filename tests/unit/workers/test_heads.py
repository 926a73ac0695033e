"""workers.heads: layouts and uses of outputs that the configuration names."""

import pytest

from common.config import ClassificationConfig, ModelConfig, RegressionConfig
from common.tensors import Heads, TensorSpec
from workers.engine import LoadError
from workers.heads import Labels, heads_of, with_layouts
from workers.ports import Port

_IMAGE = Port(TensorSpec("image", "float32", (1, 3, 8, 8), layout="NCHW"), frozenset({"image", "tensor:0"}))
_SIZE = Port(TensorSpec("size", "float32", (1, 2)), frozenset({"size"}))
_ANY = Port(TensorSpec("any", "float32", (), unranked=True), frozenset({"any"}))
_PROB = Port(TensorSpec("prob", "float32", (-1, 3, 1, 1)), frozenset({"prob", "softmax:0"}))
_AGE = Port(TensorSpec("age", "float32", (-1, 1)), frozenset({"age"}))
_NAMES = Labels(("cat", "dog", "owl"))


def _config(output: str = "", labels: str = "", top_k: int = 0, regression: str = "") -> ModelConfig:
    return ModelConfig(
        "m",
        "",
        classification=ClassificationConfig(output, labels, top_k),
        regression=RegressionConfig(regression),
    )


def _layouts(ports: tuple[Port, ...], layouts: dict[str, str]) -> list[str]:
    changed = with_layouts(ports, layouts)
    assert [port.names for port in changed] == [port.names for port in ports]
    return [port.spec.layout for port in changed]


def test_a_layout_that_is_named_wins_over_the_models() -> None:
    assert _layouts((_IMAGE,), {}) == ["NCHW"]
    assert _layouts((_IMAGE,), {"": "NHWC"}) == ["NHWC"]
    assert _layouts((_IMAGE, _SIZE), {"tensor:0": "NHWC", "size": "NC"}) == ["NHWC", "NC"]
    assert _layouts((_ANY,), {"any": "NHWC"}) == ["NHWC"]


@pytest.mark.parametrize(
    ("layouts", "reason"),
    [
        ({"": "NHWC"}, "the model has 2 inputs (image, size): layout must name them"),
        ({"x": "NHWC"}, "layout names 'x', which is no input of the model; it has image, size"),
        ({"size": "NHWC"}, "layout NHWC of input 'size' has 4 letters, and the input 2 dimensions"),
    ],
)
def test_layouts_that_fit_no_input(layouts: dict[str, str], reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        with_layouts((_IMAGE, _SIZE), layouts)
    assert caught.value.reason == reason


def test_without_options_there_is_nothing_to_say() -> None:
    assert heads_of((_PROB, _AGE), _config(), Labels()) == (Heads(), ())


def test_outputs_are_named_as_clients_know_them() -> None:
    heads, notes = heads_of((_PROB, _AGE), _config("softmax:0", top_k=2, regression="age"), _NAMES)
    assert heads == Heads("prob", _NAMES.names, 2, "age")
    assert notes == ()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (_config("x"), "classification names 'x', which is no output of the model; it has prob, age"),
        (_config(regression="x"), "regression names 'x', which is no output of the model; it has prob, age"),
        (_config("age", "names.txt"), "classification: there are 3 labels for 1 scores"),
    ],
)
def test_what_fits_no_output(config: ModelConfig, reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        heads_of((_PROB, _AGE), config, _NAMES)
    assert caught.value.reason == reason


def test_labels_that_were_found_and_do_not_fit_are_done_without() -> None:
    heads, notes = heads_of((_PROB,), _config(), Labels(("one", "two")))
    assert heads.classes == ()
    assert notes == ("there are 2 labels for 3 scores: classes go by their numbers",)


@pytest.mark.parametrize(
    "outputs",
    [(_PROB, _AGE), (Port(TensorSpec("p", "float32", (-1, -1)), frozenset()),), (_ANY,), (_SIZE, _AGE)],
)
def test_labels_are_kept_where_their_number_cannot_be_checked(outputs: tuple[Port, ...]) -> None:
    assert heads_of(outputs, _config(), _NAMES)[0].classes == _NAMES.names


def test_notes_of_the_labels_are_passed_on() -> None:
    assert heads_of((_PROB,), _config(), Labels(notes=("labels.txt is not UTF-8",)))[1] == (
        "labels.txt is not UTF-8",
    )
