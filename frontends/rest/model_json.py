"""Status and metadata as the JSON that clients of TensorFlow Serving and of the OpenVINO Model Server read.

The shapes are protobuf's JSON mapping of GetModelStatusResponse (with the names of the .proto files) and of
GetModelMetadataResponse (in camel case), both with every field printed; written by hand, so that a REST process
carries no protobuf.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from common.errors import Code
from common.messages import VersionStatus
from common.states import VersionState
from common.tensors import TensorSpec
from frontends.interface import Served
from frontends.rest.predict_format import SIGNATURE

_DATA_TYPES = {
    "bool": "DT_BOOL",
    "int8": "DT_INT8",
    "int16": "DT_INT16",
    "int32": "DT_INT32",
    "int64": "DT_INT64",
    "uint8": "DT_UINT8",
    "uint16": "DT_UINT16",
    "uint32": "DT_UINT32",
    "uint64": "DT_UINT64",
    "float16": "DT_HALF",
    "bfloat16": "DT_BFLOAT16",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "string": "DT_STRING",
}
"""tensorflow/core/framework/types.proto."""


def status_document(statuses: Iterable[VersionStatus]) -> dict[str, Any]:
    """GetModelStatusResponse."""
    return {"model_version_status": [_version(status) for status in statuses]}


def config_document(models: Mapping[str, Iterable[VersionStatus]]) -> dict[str, Any]:
    """GetModelStatusResponse by model, as the C++ OpenVINO Model Server answers /v1/config."""
    return {name: status_document(statuses) for name, statuses in models.items()}


def _version(status: VersionStatus) -> dict[str, Any]:
    error = status.error
    return {
        "version": str(status.version),
        "state": VersionState(status.state).name,
        "status": {
            "error_code": (Code.OK if error is None else error.code).name,
            "error_message": "" if error is None else error.message,
        },
    }


def metadata_document(served: Served) -> dict[str, Any]:
    """GetModelMetadataResponse."""
    return {
        "modelSpec": {"name": served.id.model, "signatureName": "", "version": str(served.id.version)},
        "metadata": {
            "signature_def": {
                "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
                "signatureDef": {
                    SIGNATURE: {
                        "inputs": {spec.name: _tensor(spec) for spec in served.signature.inputs},
                        "outputs": {spec.name: _tensor(spec) for spec in served.signature.outputs},
                        "methodName": "tensorflow/serving/predict",
                    }
                },
            }
        },
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": _DATA_TYPES[spec.dtype],
        "tensorShape": {
            "dim": [{"size": str(size), "name": ""} for size in spec.shape],
            "unknownRank": spec.unranked,
        },
        "name": spec.name,
    }
