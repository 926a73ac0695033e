"""The flags of the clients, and their help in the words and the layout that scripts around these clients know."""

import argparse
from typing import Any

DEFAULT_OUTPUT = "resnet_v1_50/predictions/Reshape_1"


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return number


def zero_or_more(text: str) -> int:
    """A whole number. Raises ArgumentTypeError."""
    return _at_least(0, text)


def one_or_more(text: str) -> int:
    """A whole number. Raises ArgumentTypeError."""
    return _at_least(1, text)


class Options:
    """A client's parser. All its options stand in one group with the title that argparse used before Python 3.10."""

    def __init__(self, description: str) -> None:
        self._parser = argparse.ArgumentParser(description=description, add_help=False)
        self._group = self._parser.add_argument_group("optional arguments")
        self.add("-h", "--help", action="help", help="show this help message and exit")

    def add(self, *flags: str, **options: Any) -> None:
        """As ArgumentParser.add_argument."""
        self._group.add_argument(*flags, **options)

    def parse(self) -> argparse.Namespace:
        """The command line; a wrong one ends the process with 2."""
        return self._parser.parse_args()

    def add_grpc_address(self) -> None:
        """Where the gRPC service is."""
        text = "Specify url to grpc service. default:localhost"
        self.add("--grpc_address", default="localhost", help=text)
        text = "Specify port to grpc service. default: 9000"
        self.add("--grpc_port", type=one_or_more, default=9000, help=text)

    def add_rest_address(self) -> None:
        """Where the REST service is."""
        text = "Specify url to REST API service. default: http://localhost"
        self.add("--rest_url", default="http://localhost", help=text)
        text = "Specify port to REST API service. default: 5555"
        self.add("--rest_port", type=one_or_more, default=5555, help=text)

    def add_model_name(
        self, text: str = "Define model name, must be same as is in service. default: resnet"
    ) -> None:
        """Which model."""
        self.add("--model_name", default="resnet", help=text)

    def add_model_version(self, text: str) -> None:
        """Which version; None when none is given."""
        self.add("--model_version", type=one_or_more, help=text)

    def add_images(self) -> None:
        """The numpy files."""
        text = "numpy in shape [n,w,h,c] or [n,c,h,w]"
        self.add("--images_numpy_path", required=True, help=text)
        text = "numpy in shape [n,1] - can be used to check model accuracy"
        self.add("--labels_numpy_path", help=text)

    def add_tensor_names(self) -> None:
        """Which input the images go to, and which output tells the classes."""
        self.add("--input_name", default="input", help="Specify input tensor name. default: input")
        text = f"Specify output name. default: {DEFAULT_OUTPUT}"
        self.add("--output_name", default=DEFAULT_OUTPUT, help=text)

    def add_requests(self) -> None:
        """How the images are put into requests."""
        text = "Set to False to skip NHWC>NCHW or NCHW>NHWC input transposing. default: True"
        self.add("--transpose_input", choices=["False", "True"], default="True", help=text)
        text = "How the input transposition should be executed: nhwc2nchw or nchw2nhwc"
        methods = ["nchw2nhwc", "nhwc2nchw"]
        self.add("--transpose_method", choices=methods, default="nhwc2nchw", help=text)
        text = (
            "Number of requests iterations, as default use number of images in numpy memmap. "
            "default: 0 (consume all frames)"
        )
        self.add("--iterations", type=zero_or_more, default=0, help=text)
        text = "Number of images in a single request. default: 1"
        self.add("--batchsize", type=one_or_more, default=1, help=text)
