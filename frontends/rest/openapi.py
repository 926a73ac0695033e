"""The OpenAPI 3.1 document of the REST API, out of its table (frontends.rest.api)."""

from typing import Any

from frontends.rest.api import JSON, OPERATIONS, Operation
from frontends.rest.schemas import SCHEMAS, reference

_PARAMETERS: dict[str, dict[str, Any]] = {
    "model": {
        "description": "Name of the model, percent-encoded.",
        "schema": {"type": "string", "minLength": 1},
    },
    "version": {
        "description": "Number of the version.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
    },
    "label": {
        "description": "Label of the version, percent-encoded.",
        "schema": {"type": "string", "minLength": 1},
    },
}

_ERRORS = {
    400: "The request contradicts itself or the model; the text says how",
    404: "There is no such model or version",
    405: "The path has another method",
    408: "The request's body did not come",
    413: "The body, or what is compressed in it, is too long",
    415: "The body's Content-Encoding is neither gzip nor identity",
    500: "The server or the engine failed",
    503: "The version is not loaded, or a bound of the server is reached; trying again may help",
    504: "The deadline passed before the answer was there",
}

_OF_SCOPE = ("", " (by version)", " (by label)")


def openapi_document() -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        if not operation.documented:
            continue
        for number, path in enumerate(operation.paths):
            paths[path] = _path_item(operation, path, number)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenVINO model server",
            "version": "1",
            "description": "TensorFlow Serving's REST API over OpenVINO. The Content-Type of a request is not looked "
            "at. Bodies may be compressed (Content-Encoding: gzip), and answers are for clients that accept it.",
        },
        "tags": [{"name": name} for name in dict.fromkeys(one.tag for one in OPERATIONS)],
        "paths": paths,
        "components": {"schemas": SCHEMAS, "responses": {str(code): _error(code) for code in _ERRORS}},
    }


def _path_item(operation: Operation, path: str, number: int) -> dict[str, Any]:
    item: dict[str, Any] = {}
    names = [name for name in _PARAMETERS if f"{{{name}}}" in path]
    if names:
        item["parameters"] = [
            {"name": name, "in": "path", "required": True, **_PARAMETERS[name]} for name in names
        ]
    item[operation.method] = _operation(operation, number)
    if operation.method == "get":
        item["head"] = _head(operation, number)
    return item


def _operation(operation: Operation, number: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _id(operation, number),
        "tags": [operation.tag],
        "summary": operation.summary + _OF_SCOPE[number],
        "description": operation.description,
    }
    if operation.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                JSON: {
                    "schema": operation.request,
                    "examples": {name: {"value": value} for name, value in operation.examples.items()},
                }
            },
        }
    described["responses"] = {
        **{
            str(status): {"description": text, "content": {media_type: {"schema": schema}}}
            for status, (text, media_type, schema) in operation.answers.items()
        },
        **{str(code): {"$ref": f"#/components/responses/{code}"} for code in (*operation.errors, 405)},
    }
    return described


def _head(operation: Operation, number: int) -> dict[str, Any]:
    """HEAD: the statuses of GET, without bodies."""
    statuses = {status: text for status, (text, _, _) in operation.answers.items()}
    statuses |= {code: _ERRORS[code] for code in (*operation.errors, 405)}
    return {
        "operationId": f"{_id(operation, number)}_head",
        "tags": [operation.tag],
        "summary": f"{operation.summary}{_OF_SCOPE[number]}: the head alone",
        "responses": {str(status): {"description": text} for status, text in statuses.items()},
    }


def _id(operation: Operation, number: int) -> str:
    return operation.kind + ("", "_version", "_label")[number]


def _error(code: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _ERRORS[code],
        "content": {JSON: {"schema": reference("Error")}},
    }
    if code == 405:
        answer["headers"] = {
            "Allow": {"description": "The methods that it has.", "schema": {"type": "string"}}
        }
    elif code == 503:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds; where a bound is reached.",
                "schema": {"type": "integer", "minimum": 0},
            }
        }
    return answer
