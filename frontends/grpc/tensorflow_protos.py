"""The messages of the TensorFlow Serving API, without TensorFlow.

The generated modules of `tensorflow-serving-api` import others that only the `tensorflow` distribution holds
(`tensorflow.core.framework.tensor_pb2` and its kin), and importing any of those runs `tensorflow/__init__.py`, which
loads the whole framework: seconds, and hundreds of megabytes a process. So a bare module that is called `tensorflow`
and knows nothing but the directory where the distribution lies takes its place in `sys.modules` before the first of
those imports; Python then finds the submodules by that directory and never runs the package's own code. The `*_pb2`
files are all that has to be there.

Everything else (tests and examples included) takes the messages from here. A process that has imported the real
TensorFlow before keeps it.
"""

import importlib.util
import sys
import types


def _install_bare_package(name: str) -> None:
    """Put a module with nothing but a `__path__` into `sys.modules`. Raises ImportError when there is none to find."""
    if name in sys.modules:
        return
    found = importlib.util.find_spec(name)
    if found is None or found.submodule_search_locations is None:
        raise ImportError(f"the generated messages of the package {name!r} are not installed", name=name)
    bare = types.ModuleType(name)
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = bare


_install_bare_package("tensorflow")

from tensorflow.core.example import example_pb2, feature_pb2  # noqa: E402 - after the bare package
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import meta_graph_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

__all__ = [
    "classification_pb2",
    "example_pb2",
    "feature_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_service_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "tensor_shape_pb2",
    "types_pb2",
]
