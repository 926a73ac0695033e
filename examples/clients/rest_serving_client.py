"""Classifies the images of a numpy file over REST, and prints how long it took and how often it was right."""

import sys

import numpy as np
import requests
from clientlib import benchmark
from clientlib.errors import run
from clientlib.options import Options
from clientlib.serving_rest import FORMATS, RestServing, encode


def main() -> None:
    """Raises ClientError."""
    options = Options(
        "Sends requests via TensorFlow Serving RESTful API using images in numpy format. "
        "It displays performance statistics and optionally the model accuracy"
    )
    options.add_images()
    options.add_rest_address()
    options.add_tensor_names()
    options.add_requests()
    options.add_model_name()
    text = f"Request format according to TF Serving API: {','.join(FORMATS)}"
    options.add("--request_format", choices=FORMATS, default=FORMATS[0], help=text)
    options.add_model_version("Model version to be used. Default: LATEST")
    arguments = options.parse()
    with RestServing(arguments.rest_url, arguments.rest_port) as server:

        def prepare(images: np.ndarray) -> bytes:
            return encode(images, arguments.input_name, arguments.request_format)

        def send(body: bytes) -> requests.Response:
            return server.predict(arguments.model_name, arguments.model_version, body)

        def read(response: requests.Response) -> np.ndarray:
            return server.output(response, arguments.output_name)

        benchmark.run(arguments, benchmark.Exchange(prepare, send, read))


if __name__ == "__main__":
    sys.exit(run(main))
