"""Every element type through the whole server with OpenVINO: by gRPC in both encodings, by REST in both formats.

What comes back is held against OpenVINO called directly, bit by bit, and against what the numbers must be.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from openvino import opset13 as ops

from common.dtypes import STORAGE
from frontends.grpc.tensorflow_protos import types_pb2
from tests.support import models
from tests.support.clients import FIELDS, TYPES, GrpcClient, RestClient, predict_request, to_array, to_proto
from tests.support.server import NAME, Server
from tests.unit.workers.models import named, parameter, save

pytestmark = pytest.mark.e2e

NAMES = list(TYPES)
ROWS = 2


def _bfloat16(values: Any) -> np.ndarray:
    """The bits; the values used here are exact."""
    bits = np.asarray(values, np.float32).view(np.uint32) >> np.uint32(16)
    return np.array(bits, np.uint16)


def _widened(array: np.ndarray, dtype: str) -> np.ndarray:
    """As numbers."""
    if dtype != "bfloat16":
        return array
    wide: np.ndarray = np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
    return wide


def _numbers(dtype: str, rows: int = ROWS, offset: int = 0) -> np.ndarray:
    """Small, exact in every type, different in each row."""
    values = np.arange(rows * 3).reshape(rows, 3) + offset
    if dtype == "bool":
        return np.array(values % 2 == 0)
    if dtype == "bfloat16":
        return _bfloat16(values)
    return values.astype(STORAGE[dtype])


def _all(rows: int = ROWS, offset: int = 0) -> dict[str, np.ndarray]:
    return {f"x_{dtype}": _numbers(dtype, rows, offset) for dtype in NAMES}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x_T [-1, 3] and y_T = x_T + x_T (not x_T for bool), for every type T."""
    base = tmp_path_factory.mktemp("types") / "models"
    inputs = [parameter(f"x_{dtype}", dtype, (-1, 3)) for dtype in NAMES]
    results = [
        named(ops.logical_not(node) if dtype == "bool" else ops.add(node, node), f"y_{dtype}")
        for dtype, node in zip(NAMES, inputs, strict=True)
    ]
    save(base / "1", results, inputs)
    return base


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[Server]:
    with Server(path.parent, path, device="CPU") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[GrpcClient]:
    with GrpcClient(server.grpc_port) as opened:
        yield opened


@pytest.fixture(scope="module")
def web(server: Server) -> Iterator[RestClient]:
    with RestClient(server.rest_port) as opened:
        yield opened


def _check(path: Path, sent: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    """All outputs, against OpenVINO and against arithmetic."""
    direct = models.infer(path / "1", sent)
    assert set(found) == set(direct)
    for dtype in NAMES:
        array = found[f"y_{dtype}"]
        assert array.dtype == STORAGE[dtype], dtype
        assert np.array_equal(array, direct[f"y_{dtype}"]), dtype
        numbers = _widened(sent[f"x_{dtype}"], dtype)
        expected = ~numbers if dtype == "bool" else numbers + numbers
        assert np.array_equal(_widened(array, dtype), expected), dtype


def test_metadata_tells_the_true_types(client: GrpcClient, web: RestClient) -> None:
    signature = client.signature()
    assert signature.method_name == "tensorflow/serving/predict"
    for letter, found in (("x", signature.inputs), ("y", signature.outputs)):
        assert {name: info.dtype for name, info in found.items()} == {
            f"{letter}_{dtype}": number for dtype, number in TYPES.items()
        }
        shapes = {tuple(dim.size for dim in info.tensor_shape.dim) for info in found.values()}
        assert shapes == {(-1, 3)}
    status, document = web.send("GET", f"/v1/models/{NAME}/metadata")
    assert status == 200
    assert document["modelSpec"] == {"name": NAME, "signatureName": "", "version": "1"}
    inputs = document["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]
    assert {name: info["dtype"] for name, info in inputs.items()} == {
        f"x_{dtype}": types_pb2.DataType.Name(number) for dtype, number in TYPES.items()
    }


@pytest.mark.parametrize("typed", [False, True], ids=["tensor_content", "values"])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_type_over_grpc(path: Path, client: GrpcClient, typed: bool, rows: int) -> None:
    sent = _all(rows, offset=3)
    protos = {f"x_{dtype}": to_proto(sent[f"x_{dtype}"], dtype, typed=typed) for dtype in NAMES}
    answer = client.stub.Predict(predict_request(protos), timeout=20)
    assert {name: proto.dtype for name, proto in answer.outputs.items()} == {
        f"y_{dtype}": number for dtype, number in TYPES.items()
    }
    assert (answer.model_spec.name, answer.model_spec.version.value) == (NAME, 1)
    assert answer.model_spec.signature_name == "serving_default"
    _check(path, sent, {name: to_array(proto) for name, proto in answer.outputs.items()})


def test_one_value_stands_for_all(path: Path, client: GrpcClient) -> None:
    sent, protos = {}, {}
    for dtype in NAMES:
        sent[f"x_{dtype}"] = np.broadcast_to(_numbers(dtype, 1, offset=2)[:, :1], (4, 3)).copy()
        proto = to_proto(sent[f"x_{dtype}"], dtype, typed=True)
        del getattr(proto, FIELDS[dtype])[1:]
        protos[f"x_{dtype}"] = proto
    answer = client.stub.Predict(predict_request(protos), timeout=20)
    _check(path, sent, {name: to_array(proto) for name, proto in answer.outputs.items()})


def test_the_ends_of_the_integers(client: GrpcClient) -> None:
    protos = {f"x_{dtype}": to_proto(_numbers(dtype, 1), dtype) for dtype in NAMES}
    expected = {}
    for dtype in NAMES:
        if STORAGE[dtype].kind in "iu" and dtype != "bfloat16":
            half = np.iinfo(STORAGE[dtype]).max // 2
            array = np.array([[half, half - 1, 1]], STORAGE[dtype])
            protos[f"x_{dtype}"] = to_proto(array, dtype, typed=True)
            expected[f"y_{dtype}"] = array + array
    answer = client.stub.Predict(predict_request(protos), timeout=20)
    for name, array in expected.items():
        if name in ("y_int64", "y_uint64", "y_uint32"):
            # OpenVINO's CPU plugin computes 64-bit integers in 32 bits; the way there and back is not ours to test.
            continue
        assert np.array_equal(to_array(answer.outputs[name]), array), name


@pytest.mark.parametrize("source", ["float64", "int64", "float32"])
def test_what_numpy_makes_of_python_numbers_is_taken(path: Path, client: GrpcClient, source: str) -> None:
    sent = _all()
    protos = {f"x_{dtype}": to_proto(sent[f"x_{dtype}"], dtype) for dtype in NAMES}
    kinds = {"float32": ("float16", "bfloat16", "float32", "float64")}
    targets = kinds.get(source, tuple(dtype for dtype in NAMES if dtype != "bool"))
    for dtype in targets:
        protos[f"x_{dtype}"] = to_proto(_widened(sent[f"x_{dtype}"], dtype).astype(source))
    answer = client.stub.Predict(predict_request(protos), timeout=20)
    _check(path, sent, {name: to_array(proto) for name, proto in answer.outputs.items()})


def test_what_would_lose_its_kind_is_refused(client: GrpcClient) -> None:
    protos = {f"x_{dtype}": to_proto(_numbers(dtype), dtype) for dtype in NAMES}
    for source, target in (("float32", "int32"), ("int32", "bool"), ("float32", "uint8")):
        code, text = client.refusal({**protos, f"x_{target}": to_proto(_numbers(source), source)})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert source in text
        assert target in text


def _json(dtype: str, array: np.ndarray) -> Any:
    return _widened(array, dtype).tolist()


def _from_json(dtype: str, value: Any) -> np.ndarray:
    return _bfloat16(value) if dtype == "bfloat16" else np.array(value, STORAGE[dtype])


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_type_by_columns(path: Path, web: RestClient, rows: int) -> None:
    sent = _all(rows, offset=1)
    document = {f"x_{dtype}": _json(dtype, sent[f"x_{dtype}"]) for dtype in NAMES}
    status, answer = web.predict({"inputs": document})
    assert status == 200, answer
    found = {f"y_{dtype}": _from_json(dtype, answer["outputs"][f"y_{dtype}"]) for dtype in NAMES}
    _check(path, sent, found)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_type_by_rows(path: Path, web: RestClient, rows: int) -> None:
    sent = _all(rows, offset=2)
    instances = [
        {f"x_{dtype}": _json(dtype, sent[f"x_{dtype}"][row]) for dtype in NAMES} for row in range(rows)
    ]
    status, answer = web.predict({"signature_name": "serving_default", "instances": instances})
    assert status == 200, answer
    assert len(answer["predictions"]) == rows
    found = {
        f"y_{dtype}": _from_json(dtype, [row[f"y_{dtype}"] for row in answer["predictions"]])
        for dtype in NAMES
    }
    _check(path, sent, found)


def test_output_filter(client: GrpcClient) -> None:
    sent = _all()
    request = predict_request(
        {f"x_{dtype}": to_proto(sent[f"x_{dtype}"], dtype) for dtype in NAMES}, version=1
    )
    request.output_filter.extend(["y_int16", "y_float64"])
    answer = client.stub.Predict(request, timeout=20)
    assert set(answer.outputs) == {"y_int16", "y_float64"}
    for dtype in ("int16", "float64"):
        assert np.array_equal(to_array(answer.outputs[f"y_{dtype}"]), 2 * sent[f"x_{dtype}"])


@pytest.mark.parametrize("missing", ["x_bool", "x_float32"])
def test_a_missing_input_is_named(client: GrpcClient, web: RestClient, missing: str) -> None:
    sent = _all()
    protos = {f"x_{dtype}": to_proto(sent[f"x_{dtype}"], dtype) for dtype in NAMES}
    del protos[missing]
    code, text = client.refusal(protos)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith(f"Missing inputs: ['{missing}'].")
    document = {f"x_{dtype}": _json(dtype, sent[f"x_{dtype}"]) for dtype in NAMES}
    del document[missing]
    status, answer = web.predict({"inputs": document})
    assert (status, answer) == (400, {"error": text})
    assert web.predict({"instances": [{name: value[0] for name, value in document.items()}]})[0] == 400


# ---- shapes beyond tables


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A scalar and a table in; their product, the table's shape, the sum of everything and special numbers out."""
    directory = tmp_path_factory.mktemp("odd")
    scalar = parameter("scalar", "float32", ())
    table = parameter("table", "float32", (-1, -1))
    product = named(ops.multiply(table, scalar), "product")
    shape = named(ops.shape_of(table), "shape")
    total = named(ops.reduce_sum(table, ops.constant(np.array([0, 1])), keep_dims=False), "total")
    inverse = named(ops.divide(scalar, ops.subtract(scalar, scalar)), "inverse")
    save(directory / "models" / "1", [product, shape, total, inverse], [scalar, table])
    with Server(directory, directory / "models", device="CPU") as started:
        yield started


def test_scalars_and_shapes_that_follow_the_request(odd: Server) -> None:
    with GrpcClient(odd.grpc_port) as client, RestClient(odd.rest_port) as web:
        for rows, columns in ((1, 1), (3, 5), (1, 700), (40, 2), (3, 5)):
            table = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
            sent = {"scalar": np.array(3.0, np.float32), "table": table}
            found = client.predict(sent)
            direct = models.infer(odd.model_path / "1", sent)
            assert {name: array.shape for name, array in found.items()} == {
                "product": (rows, columns),
                "shape": (2,),
                "total": (),
                "inverse": (),
            }
            assert all(np.array_equal(found[name], direct[name]) for name in found)
            assert found["total"] == table.sum()
            status, answer = web.predict({"inputs": {"scalar": 3.0, "table": table.tolist()}})
            assert status == 200
            outputs = answer["outputs"]
            assert outputs["product"] == (3 * table).tolist()
            assert outputs["shape"] == [rows, columns]
            assert outputs["total"] == table.sum()
            assert outputs["inverse"] == math.inf


def test_numbers_that_json_does_not_have(odd: Server) -> None:
    with RestClient(odd.rest_port) as web:
        body = b'{"inputs": {"scalar": 0.0, "table": [[NaN, Infinity, -Infinity, 1.5]]}}'
        status, answer = web.send("POST", f"/v1/models/{NAME}:predict", body)
        assert status == 200, answer
        (product,) = answer["outputs"]["product"]
        assert [math.isnan(number) for number in product] == [True, True, True, False]
        assert math.isnan(answer["outputs"]["inverse"])


def test_what_cannot_be_answered_row_by_row_is_refused_with_advice(odd: Server) -> None:
    with RestClient(odd.rest_port) as web:
        status, answer = web.predict({"instances": [{"scalar": 1.0, "table": [1.0, 2.0]}]})
        assert status == 400
        assert "error" in answer


def test_an_empty_batch(odd: Server) -> None:
    with GrpcClient(odd.grpc_port) as client:
        sent = {"scalar": np.array(3.0, np.float32), "table": np.zeros((0, 4), np.float32)}
        found = client.predict(sent)
        assert found["product"].shape == (0, 4)
        assert found["shape"].tolist() == [0, 4]
        assert found["total"] == 0
