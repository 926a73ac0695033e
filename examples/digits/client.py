"""A client of the digits model: sends images over REST and over gRPC and prints what the server finds in them.

.venv/bin/python -m examples.digits.client examples/digits/images/7.png
"""

import argparse
import json
import sys
import urllib.request
from pathlib import Path

import grpc
import numpy as np

from examples.digits import png
from frontends.grpc.tensorflow_protos import predict_pb2, prediction_service_pb2_grpc, types_pb2

MODEL = "digits"
TIMEOUT_S = 10.0

# The server is on this machine: a proxy that the environment names has no part in it.
open_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
DIRECTLY = [("grpc.enable_http_proxy", 0)]


def predict_rest(image: png.Image, port: int, model: str = MODEL) -> list[float]:
    """The probabilities of the ten digits, by `POST /v1/models/digits:predict`. Raises OSError, HTTPError among it."""
    url = f"http://127.0.0.1:{port}/v1/models/{model}:predict"
    body = json.dumps({"instances": [image]}).encode()
    with open_directly(url, body, timeout=TIMEOUT_S) as response:
        probabilities: list[float] = json.load(response)["predictions"][0]
    return probabilities


def predict_grpc(image: png.Image, port: int, model: str = MODEL) -> list[float]:
    """The probabilities of the ten digits, by `PredictionService.Predict`. Raises grpc.RpcError."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["image"]
    tensor.dtype = types_pb2.DT_FLOAT
    for length in (1, png.SIDE, png.SIDE):
        tensor.tensor_shape.dim.add(size=length)
    tensor.tensor_content = np.array(image, np.float32).tobytes()
    with grpc.insecure_channel(f"127.0.0.1:{port}", DIRECTLY) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(request, timeout=TIMEOUT_S)
    found: list[float] = np.frombuffer(answer.outputs["probabilities"].tensor_content, np.float32).tolist()
    return found


def describe(probabilities: list[float]) -> str:
    """The most probable digit, in words."""
    digit = max(range(len(probabilities)), key=probabilities.__getitem__)
    return f"it is a {digit} (probability {probabilities[digit]:.3f})"


def main() -> int:
    """Classify the files named on the command line."""
    parser = argparse.ArgumentParser(description="Ask a running server which digits these images show.")
    parser.add_argument(
        "images", nargs="+", type=Path, help="8x8 PNG files, like those in examples/digits/images"
    )
    parser.add_argument("--model_name", default=MODEL, help=f"name that the model is served by ({MODEL})")
    parser.add_argument("--port", type=int, default=9000, help="gRPC port (9000)")
    parser.add_argument("--rest_port", type=int, default=8000, help="REST port (8000)")
    arguments = parser.parse_args()
    try:
        for path in arguments.images:
            image = png.read(path)
            rest = describe(predict_rest(image, arguments.rest_port, arguments.model_name))
            over_grpc = describe(predict_grpc(image, arguments.port, arguments.model_name))
            print(f"{path}: REST says {rest}, gRPC says {over_grpc}")
    except (OSError, ValueError, grpc.RpcError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
