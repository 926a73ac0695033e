"""Prints in which state the versions of a model are, asked over gRPC."""

import sys

from clientlib.answers import status_lines
from clientlib.errors import run
from clientlib.options import Options
from clientlib.serving_grpc import GrpcServing


def main() -> None:
    """Raises ClientError."""
    options = Options("Get information about the status of served models")
    options.add_grpc_address()
    options.add_model_name("Model name to query. default: resnet")
    options.add_model_version("Model version to query. Lists all versions if not specified")
    arguments = options.parse()
    with GrpcServing(arguments.grpc_address, arguments.grpc_port) as server:
        versions = server.status(arguments.model_name, arguments.model_version)
    print("\n".join(status_lines(arguments.model_name, versions)))


if __name__ == "__main__":
    sys.exit(run(main))
