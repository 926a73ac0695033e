"""Server reflection, https://github.com/grpc/grpc/blob/master/doc/server-reflection.md, over protobuf's default pool.

Versions v1 and v1alpha are the same messages in packages of different names, so one handler answers both. Generated
code exists here for v1alpha only; v1 can be called but is not listed, because its own description could not be given.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from common.errors import Code, InvalidArgumentError
from frontends.grpc.calls import Call, Reply, Stream, Table
from frontends.grpc.errors import STATUS

SERVICE = "grpc.reflection.v1alpha.ServerReflection"
SERVICES = (SERVICE, "grpc.reflection.v1.ServerReflection")


class Reflection:
    """Tells which services there are and what their messages look like."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted({*services, SERVICE})

    def methods(self) -> Table:
        """The one method, under both of its paths."""
        return {f"/{service}/ServerReflectionInfo": Stream(self.info) for service in SERVICES}

    async def info(self, messages: AsyncIterator[memoryview], call: Call) -> AsyncIterator[Reply]:
        """One answer to each question; what is not known is an error inside an answer, not the end of the call."""
        async for message in messages:
            try:
                request = reflection_pb2.ServerReflectionRequest.FromString(message)
            except DecodeError as error:
                raise InvalidArgumentError(
                    f"The request is not a ServerReflectionRequest: {error}"
                ) from error
            response = self._answer(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield [response.SerializeToString()]

    def _answer(self, request: Any) -> Any:
        pool = descriptor_pool.Default()
        match request.WhichOneof("message_request"):
            case "list_services":
                services = [reflection_pb2.ServiceResponse(name=name) for name in self._services]
                return reflection_pb2.ServerReflectionResponse(
                    list_services_response=reflection_pb2.ListServiceResponse(service=services)
                )
            case "file_by_filename":
                return _file_response(pool.FindFileByName, request.file_by_filename)
            case "file_containing_symbol":
                return _file_response(_find_symbol, request.file_containing_symbol)
            case None:
                return _error(Code.INVALID_ARGUMENT, "the request asks nothing")
            case other:
                # The messages here are proto3 of the kind that has no extensions.
                return _error(Code.NOT_FOUND, f"{other}: there are no extensions")


def _file_response(find: Any, name: str) -> Any:
    """The file that `find` gives for `name`, and all that it imports, each after what it needs."""
    try:
        found = find(name)
    except KeyError:
        return _error(Code.NOT_FOUND, f"{name} is not known")
    files: dict[str, bytes] = {}
    _collect(found, files)
    return reflection_pb2.ServerReflectionResponse(
        file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=files.values())
    )


def _find_symbol(name: str) -> Any:
    """The file that declares a type, a service or a method. Raises KeyError."""
    pool = descriptor_pool.Default()
    try:
        return pool.FindFileContainingSymbol(name)
    except KeyError:
        # protobuf's own implementation does not count methods as symbols; the reflection protocol does.
        return pool.FindMethodByName(name).containing_service.file


def _collect(file: Any, files: dict[str, bytes]) -> None:
    for dependency in file.dependencies:
        if dependency.name not in files:
            _collect(dependency, files)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    files[file.name] = proto.SerializeToString()


def _error(code: Code, text: str) -> Any:
    return reflection_pb2.ServerReflectionResponse(
        error_response=reflection_pb2.ErrorResponse(error_code=STATUS[code], error_message=text)
    )
