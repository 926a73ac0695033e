"""Classifies the images of a numpy file over gRPC, and prints how long it took and how often it was right."""

import sys

import numpy as np
from clientlib import benchmark
from clientlib.errors import run
from clientlib.options import Options
from clientlib.serving_grpc import GrpcServing


def main() -> None:
    """Raises ClientError."""
    options = Options(
        "Sends requests via TFS gRPC API using images in numpy format. "
        "It displays performance statistics and optionally the model accuracy"
    )
    options.add_images()
    options.add_grpc_address()
    options.add_tensor_names()
    options.add_requests()
    options.add_model_name()
    arguments = options.parse()
    with GrpcServing(arguments.grpc_address, arguments.grpc_port) as server:

        def prepare(images: np.ndarray) -> object:
            return server.prepare(arguments.model_name, arguments.input_name, images)

        def read(response: object) -> np.ndarray:
            return server.output(response, arguments.output_name)

        benchmark.run(arguments, benchmark.Exchange(prepare, server.predict, read))


if __name__ == "__main__":
    sys.exit(run(main))
