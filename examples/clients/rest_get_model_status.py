"""Prints in which state the versions of a model are, asked over REST."""

import sys

from clientlib.answers import status_lines
from clientlib.errors import run
from clientlib.options import Options
from clientlib.serving_rest import RestServing


def main() -> None:
    """Raises ClientError."""
    options = Options("Get served models status")
    options.add_rest_address()
    options.add_model_name("Model name to query, must be same as is in service. default: resnet")
    options.add_model_version("Model version to query - must be numerical. List all version if omitted")
    arguments = options.parse()
    with RestServing(arguments.rest_url, arguments.rest_port) as server:
        versions = server.status(arguments.model_name, arguments.model_version)
    print("\n".join(status_lines(arguments.model_name, versions)))


if __name__ == "__main__":
    sys.exit(run(main))
