"""The messages of the TensorFlow Serving API, with TensorFlow installed or with its generated modules alone.

`tensorflow-serving-api` takes messages like TensorProto from the distribution `tensorflow` (or `tensorflow-cpu`), and
importing anything of that would load the whole framework, which takes seconds and which may not be complete here. A
client needs none of it. So a bare module of that name, which knows only where the distribution lies, stands in for
it; a program that has imported TensorFlow before keeps what it has.
"""

import importlib.util
import sys
import types


def _stand_in(name: str) -> None:
    if name in sys.modules:
        return
    found = importlib.util.find_spec(name)
    if found is None or found.submodule_search_locations is None:
        raise ImportError(f"{name} is missing: pip install -r requirements.txt", name=name)
    module = types.ModuleType(name)
    module.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = module


_stand_in("tensorflow")

from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402 - after the stand-in
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

__all__ = [
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2_grpc",
    "tensor_pb2",
    "types_pb2",
]
