"""Classifies a list of labelled JPEG or PNG files over gRPC and prints how often the model was right."""

import sys
import time

from clientlib import pictures, report
from clientlib.errors import run
from clientlib.options import Options, one_or_more
from clientlib.progress import Progress
from clientlib.serving_grpc import GrpcServing
from clientlib.tensors import NUMPY_TYPES


def find_layout(server: GrpcServing, model: str, input_name: str) -> pictures.Layout:
    """How the model takes images. An unknown input is left to the server to refuse, with its own words."""
    for tensor in server.metadata(model).inputs:
        if tensor.name == input_name:
            return pictures.layout_of(tensor.shape, NUMPY_TYPES.get(tensor.data_type, "float32"))
    return pictures.NCHW


def main() -> None:
    """Raises ClientError."""
    options = Options("Do requests to ie_serving and tf_serving using images in numpy format")
    text = "path to a file with a list of labeled images"
    options.add("--images_list", default="input_images.txt", help=text)
    options.add_grpc_address()
    options.add_tensor_names()
    options.add_model_name()
    options.add("--size", type=one_or_more, default=224, help="The size of the image in the model")
    arguments = options.parse()
    images = pictures.read_list(arguments.images_list)
    print(f"\tModel name: {arguments.model_name}\n\tImages list file: {arguments.images_list}\n")
    right = 0
    with (
        GrpcServing(arguments.grpc_address, arguments.grpc_port) as server,
        Progress(len(images)) as progress,
    ):
        layout = find_layout(server, arguments.model_name, arguments.input_name)
        for image in images:
            pixels = pictures.load(image, arguments.size, layout)
            request = server.prepare(arguments.model_name, arguments.input_name, pixels)
            start = time.perf_counter()
            response = server.predict(request)
            milliseconds = (time.perf_counter() - start) * 1000
            (number,) = report.classes_of(server.output(response, arguments.output_name), 1)
            right += int(number == image.label)
            progress.step(
                [
                    f"{image.name} {pixels.shape} ; data range: {float(pixels.min())} : {float(pixels.max())}",
                    report.picture_line(milliseconds),
                    f"Detected: {number}  Should be: {image.label}",
                ]
            )
    print(f"\nOverall accuracy= {round(100 * right / len(images), 2)}")


if __name__ == "__main__":
    sys.exit(run(main))
