"""JSON Schemas of the REST API's bodies, for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any


def reference(name: str) -> dict[str, str]:
    """A schema by its name in SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    """An object of these members and no others, all but the optional ones required."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **more}


def _map(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": dict(values)}


_SIGNATURE_NAME = {
    "description": "The one signature that a model has here, or empty.",
    "enum": ["serving_default", ""],
}
_TENSOR = reference("Tensor")
_FEATURES = _map(reference("Feature"))
_TEXT = {"type": "string"}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _object({"error": {"type": "string", "minLength": 1}}),
    "Bytes": {
        "description": "Bytes: a JPEG or PNG image for an input that takes images, any for one that takes strings.",
        **_object({"b64": {"type": "string", "contentEncoding": "base64"}}),
    },
    "Tensor": {
        "description": "A number, a boolean, a text, bytes, or an array of tensors of one shape. NaN, Infinity and "
        "-Infinity are read and written as these words.",
        "anyOf": [
            {"type": "number"},
            {"type": "boolean"},
            _TEXT,
            reference("Bytes"),
            _list(_TENSOR),
        ],
    },
    "NamedTensors": {"description": "Tensors by name.", "minProperties": 1, **_map(_TENSOR)},
    "PredictRequest": {
        "description": "Exactly one of 'instances' and 'inputs'. Further members are ignored.",
        "oneOf": [
            {
                "type": "object",
                "title": "Row format",
                "properties": {
                    "signature_name": _SIGNATURE_NAME,
                    "instances": {
                        "description": "Objects with every input of the model in each, or bare values for a model "
                        "of one input.",
                        "anyOf": [
                            _list(reference("NamedTensors"), minItems=1),
                            _list(_TENSOR, minItems=1),
                        ],
                    },
                },
                "required": ["instances"],
            },
            {
                "type": "object",
                "title": "Column format",
                "properties": {
                    "signature_name": _SIGNATURE_NAME,
                    "inputs": {
                        "description": "An object with every input of the model, or a bare value for a model of one.",
                        "anyOf": [reference("NamedTensors"), _TENSOR],
                    },
                },
                "required": ["inputs"],
            },
        ],
    },
    "PredictResponse": {
        "oneOf": [
            _object({"predictions": {"anyOf": [_list(_TENSOR), _list(reference("NamedTensors"))]}}),
            _object({"outputs": {"anyOf": [_TENSOR, reference("NamedTensors")]}}),
        ]
    },
    "Feature": {
        "description": "A value or a list of values: numbers, or bytes as text or base64.",
        "anyOf": [reference("FeatureValue"), _list(reference("FeatureValue"))],
    },
    "FeatureValue": {
        "anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string"}, reference("Bytes")]
    },
    "ExamplesRequest": {
        "type": "object",
        "properties": {
            "signature_name": _SIGNATURE_NAME,
            "context": {"description": "Features that all examples have in common.", **_FEATURES},
            "examples": _list(_FEATURES, minItems=1),
        },
        "required": ["examples"],
    },
    "ClassifyResponse": _object({"results": _list(_list(reference("LabelAndScore")))}),
    "LabelAndScore": {
        "description": "The label first, then the score.",
        **_list({"anyOf": [_TEXT, {"type": "number"}]}, minItems=2, maxItems=2),
    },
    "RegressResponse": _object({"results": _list({"type": "number"})}),
    "StatusResponse": _object({"model_version_status": _list(reference("VersionStatus"))}),
    "VersionStatus": _object(
        {
            "version": {"type": "string", "pattern": "^[0-9]+$"},
            "state": {"enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
            "status": _object({"error_code": _TEXT, "error_message": _TEXT}),
        }
    ),
    "ConfigResponse": {"description": "By model.", **_map(reference("StatusResponse"))},
    "MetadataResponse": _object(
        {
            "modelSpec": _object({"name": _TEXT, "signatureName": _TEXT, "version": _TEXT}),
            "metadata": _object(
                {
                    "signature_def": _object(
                        {
                            "@type": {"const": "type.googleapis.com/tensorflow.serving.SignatureDefMap"},
                            "signatureDef": _map(reference("SignatureDef")),
                        }
                    )
                }
            ),
        }
    ),
    "SignatureDef": _object(
        {
            "inputs": _map(reference("TensorInfo")),
            "outputs": _map(reference("TensorInfo")),
            "methodName": _TEXT,
        }
    ),
    "TensorInfo": _object(
        {
            "dtype": {"type": "string", "pattern": "^DT_"},
            "tensorShape": _object(
                {"dim": _list(_object({"size": _TEXT, "name": _TEXT})), "unknownRank": {"type": "boolean"}}
            ),
            "name": _TEXT,
        }
    ),
}
"""By name."""

PREDICT_EXAMPLES: dict[str, Any] = {
    "A model of one input, row by row": {"instances": [[1.0, 2.0], [3.0, 4.0]]},
    "Inputs by name, row by row": {"instances": [{"a": [1.0], "b": 2}, {"a": [3.0], "b": 4}]},
    "Inputs by name, whole": {"inputs": {"a": [[1.0], [3.0]], "b": [2, 4]}},
    "An image, JPEG or PNG": {"instances": [{"b64": "/9j/4AAQ"}]},
}
EXAMPLES_EXAMPLES: dict[str, Any] = {
    "Features by name": {"examples": [{"a": [1.0, 2.0]}, {"a": [3.0, 4.0]}]},
    "What all examples have in common": {"context": {"b": 5}, "examples": [{"a": 1.0}, {"a": 2.0}]},
}
