"""frontends.grpc.reflection: answers about services, files and symbols, and about what is not there."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from common.errors import InvalidArgumentError
from frontends.grpc.reflection import SERVICES, Reflection
from tests.unit.frontends.grpc.calling import run, stream

_API = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


async def _ask(path: str, *messages: bytes) -> list[Any]:
    table = Reflection(_API).methods()
    return [
        reflection_pb2.ServerReflectionResponse.FromString(raw) async for raw in stream(table, path, messages)
    ]


def _answer(version: int = 0, **question: Any) -> Any:
    request = reflection_pb2.ServerReflectionRequest(host="here", **question)
    (response,) = run(_ask(f"/{SERVICES[version]}/ServerReflectionInfo", request.SerializeToString()))
    assert response.original_request == request
    assert response.valid_host == "here"
    return response


@pytest.mark.parametrize("version", range(len(SERVICES)))
def test_services_are_listed_under_both_names(version: int) -> None:
    response = _answer(version, list_services="*")
    names = [service.name for service in response.list_services_response.service]
    assert names == sorted([*_API, "grpc.reflection.v1alpha.ServerReflection"])


def test_every_listed_service_is_described() -> None:
    for service in _answer(list_services="").list_services_response.service:
        assert _files(_answer(file_containing_symbol=service.name))


def _files(response: Any) -> list[Any]:
    assert response.WhichOneof("message_response") == "file_descriptor_response"
    return [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in response.file_descriptor_response.file_descriptor_proto
    ]


@pytest.mark.parametrize(
    "symbol",
    [
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.PredictionService.Predict",
        "tensorflow.TensorProto",
        "tensorflow.DataType",
    ],
)
def test_a_symbols_files_can_be_linked_in_the_order_given(symbol: str) -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in _files(_answer(file_containing_symbol=symbol)):
        pool.Add(file)
        pool.FindFileByName(file.name)
    service, _, method = symbol.rpartition(".")
    if method == "Predict":
        assert method in pool.FindServiceByName(service).methods_by_name
    else:
        assert pool.FindFileContainingSymbol(symbol).package == symbol.rpartition(".")[0]


def test_a_file_is_found_by_its_name() -> None:
    name = "tensorflow_serving/apis/predict.proto"
    assert _files(_answer(file_by_filename=name))[-1].name == name


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "no.such.Symbol"},
        {"file_containing_symbol": ""},
        {"all_extension_numbers_of_type": "tensorflow.TensorProto"},
        {"file_containing_extension": {"containing_type": "tensorflow.TensorProto", "extension_number": 1}},
    ],
)
def test_what_is_not_there_is_an_answer(question: dict[str, Any]) -> None:
    response = _answer(**question)
    assert response.error_response.error_code == 5
    assert response.error_response.error_message


def test_an_empty_question_is_answered() -> None:
    assert _answer().error_response.error_code == 3


def test_questions_are_answered_in_their_order() -> None:
    names = ["tensorflow_serving/apis/model.proto", "missing", "tensorflow_serving/apis/predict.proto"]
    requests = [reflection_pb2.ServerReflectionRequest(file_by_filename=name) for name in names]
    raw = [request.SerializeToString() for request in requests]
    responses = run(_ask(f"/{SERVICES[0]}/ServerReflectionInfo", *raw))
    assert [response.original_request.file_by_filename for response in responses] == names


def test_bytes_that_are_no_question_end_the_call() -> None:
    with pytest.raises(InvalidArgumentError):
        run(_ask(f"/{SERVICES[0]}/ServerReflectionInfo", b"\xff"))
