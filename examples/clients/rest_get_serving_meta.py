"""Prints the inputs and outputs of a model, asked over REST."""

import sys

from clientlib.answers import metadata_lines
from clientlib.errors import run
from clientlib.options import Options
from clientlib.serving_rest import RestServing


def main() -> None:
    """Raises ClientError."""
    options = Options("Get information about served models")
    options.add_rest_address()
    options.add_model_name()
    options.add_model_version("Define model version - must be numerical")
    arguments = options.parse()
    with RestServing(arguments.rest_url, arguments.rest_port) as server:
        metadata = server.metadata(arguments.model_name, arguments.model_version)
    print("\n".join(metadata_lines(arguments.model_name, metadata)))


if __name__ == "__main__":
    sys.exit(run(main))
