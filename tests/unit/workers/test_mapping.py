"""mapping_config.json."""

import json
from typing import Any

import pytest

from common.tensors import TensorSpec
from workers.engine import LoadError
from workers.mapping import Aliases, parse, rename
from workers.ports import Port


def port(name: str, *names: str) -> Port:
    return Port(TensorSpec(name, "float32", (1, 3)), frozenset({name, *names}))


PORTS = (port("x", "x:0"), port("y", "y:0", "shared"), port("z", "shared"))


def test_both_sides_may_be_left_out() -> None:
    assert parse(b"{}") == Aliases({}, {})
    assert parse(b'{"inputs": {"x": "data"}}') == Aliases({"x": "data"}, {})
    assert parse(b'{"outputs": {"y": "prob"}, "inputs": {}}') == Aliases({}, {"y": "prob"})


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "holds an array where an object is wanted"),
        ("x", "holds a string"),
        (3, "holds a number"),
        ({"input": {}}, "unknown key 'input'; it may hold inputs and outputs"),
        ({"inputs": []}, "inputs is an array"),
        ({"outputs": None}, "outputs is null"),
        ({"inputs": {"x": 1}}, "the alias of 'x' in inputs is not a name"),
        ({"inputs": {"x": ""}}, "the alias of 'x' in inputs is not a name"),
    ],
)
def test_documents_that_are_wrong(document: Any, text: str) -> None:
    with pytest.raises(LoadError, match=text) as raised:
        parse(json.dumps(document).encode())
    assert raised.value.reason.startswith("mapping_config.json")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "mapping_config.json: "),
        (b'{"inputs": {"x": "a",}}', "no trailing commas"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"inputs": {"x": "a", "x": "b"}}', "the key 'x' comes twice"),
        (b"[" * 100_000, "mapping_config.json: "),
    ],
)
def test_content_that_is_no_json(content: bytes, text: str) -> None:
    with pytest.raises(LoadError, match=text):
        parse(content)


def test_what_is_not_named_keeps_its_name() -> None:
    renamed = rename(PORTS, {"x:0": "data", "z": "x"}, "inputs")
    assert [one.spec.name for one in renamed] == ["data", "y", "x"]
    assert renamed[0].spec == TensorSpec("data", "float32", (1, 3))
    assert renamed[0].names == {"x", "x:0", "data"}


@pytest.mark.parametrize(
    ("aliases", "text"),
    [
        ({"w": "a"}, "'w' is not one of the model's inputs: x, y, z"),
        ({"shared": "a"}, "'shared' is the name of several of the model's inputs"),
        ({"x": "a", "y": "a"}, "two inputs would be named 'a'"),
        ({"x": "y"}, "two inputs would be named 'y'"),
        ({"x": "a", "x:0": "b"}, "'x' and 'x:0' of inputs are one tensor"),
    ],
)
def test_aliases_that_fit_no_tensor(aliases: dict[str, str], text: str) -> None:
    with pytest.raises(LoadError, match=text):
        rename(PORTS, aliases, "inputs")
