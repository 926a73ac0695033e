"""What the example clients print, as their documentation shows it: help texts, and lines as regular expressions."""

import re
from collections.abc import Sequence

TIME = r"\d+\.\d\d"

STATUS = [r"Model version: 1", r"State AVAILABLE", r"Error code:  0", r"Error message:"]

STATISTICS = [
    r"processing time for all iterations",
    *[rf"{name} time: {TIME} ms; {name} speed: {TIME} fps" for name in ("average", "median", "max", "min")],
    *[rf"time percentile {n}: {TIME} ms; speed percentile {n}: {TIME} fps" for n in (90, 50)],
    rf"time standard deviation: {TIME}",
    rf"time variance: {TIME}",
]


def header(model: str, iterations: int, path: object, shape: tuple[int, ...]) -> list[str]:
    """Of the serving clients."""
    lines = [
        "Start processing:",
        f"\tModel name: {model}",
        f"\tIterations: {iterations}",
        f"\tImages numpy path: {path}",
        f"\tImages in shape: {shape}",
        "",
    ]
    return [re.escape(line) for line in lines]


def iteration(number: int, results: Sequence[str]) -> list[str]:
    """Of one request; `results` are the literal lines, without the tab, of what was found."""
    return [
        rf"Iteration {number}; Processing time: {TIME} ms; speed {TIME} fps",
        r"imagenet top results in a single batch:",
        *[re.escape(f"\t {index} {result}") for index, result in enumerate(results)],
    ]


def picture(
    name: str, shape: tuple[int, ...], pixels: tuple[float, float], found: int, label: int
) -> list[str]:
    """Of one image of jpeg_classification.py."""
    low, high = pixels
    return [
        re.escape(f"{name} {shape} ; data range: {low} : {high}"),
        rf"Processing time: {TIME} ms; speed {TIME} fps \d+\.\d{{1,2}}",
        re.escape(f"Detected: {found}  Should be: {label}"),
    ]


def check(output: str, form: Sequence[str]) -> None:
    """Line by line. Raises AssertionError at the first that differs."""
    lines = output.splitlines()
    for number, (line, pattern) in enumerate(zip(lines, form, strict=False), 1):
        assert re.fullmatch(pattern, line), f"line {number} is {line!r}, not {pattern!r}"
    assert len(lines) == len(form), f"{len(lines)} lines, not {len(form)}:\n{output}"


_GRPC_ADDRESS = """\
  --grpc_address GRPC_ADDRESS
                        Specify url to grpc service. default:localhost
  --grpc_port GRPC_PORT
                        Specify port to grpc service. default: 9000
"""
_REST_ADDRESS = """\
  --rest_url REST_URL   Specify url to REST API service. default:
                        http://localhost
  --rest_port REST_PORT
                        Specify port to REST API service. default: 5555
"""
_HELP_FLAG = """\
optional arguments:
  -h, --help            show this help message and exit
"""
_MODEL_NAME = """\
  --model_name MODEL_NAME
                        Define model name, must be same as is in service.
                        default: resnet
"""
_NUMERICAL_VERSION = """\
  --model_version MODEL_VERSION
                        Define model version - must be numerical
"""
_IMAGES = """\
  --images_numpy_path IMAGES_NUMPY_PATH
                        numpy in shape [n,w,h,c] or [n,c,h,w]
  --labels_numpy_path LABELS_NUMPY_PATH
                        numpy in shape [n,1] - can be used to check model
                        accuracy
"""
_TENSORS = """\
  --input_name INPUT_NAME
                        Specify input tensor name. default: input
  --output_name OUTPUT_NAME
                        Specify output name. default:
                        resnet_v1_50/predictions/Reshape_1
"""
_REQUESTS = """\
  --transpose_input {False,True}
                        Set to False to skip NHWC>NCHW or NCHW>NHWC input
                        transposing. default: True
  --transpose_method {nchw2nhwc,nhwc2nchw}
                        How the input transposition should be executed:
                        nhwc2nchw or nchw2nhwc
  --iterations ITERATIONS
                        Number of requests iterations, as default use number
                        of images in numpy memmap. default: 0 (consume all
                        frames)
  --batchsize BATCHSIZE
                        Number of images in a single request. default: 1
"""

HELP = {
    "get_model_status.py": f"""\
Get information about the status of served models

{_HELP_FLAG}{_GRPC_ADDRESS}  --model_name MODEL_NAME
                        Model name to query. default: resnet
  --model_version MODEL_VERSION
                        Model version to query. Lists all versions if not
                        specified
""",
    "get_serving_meta.py": f"""\
Get information about served models

{_HELP_FLAG}{_GRPC_ADDRESS}{_MODEL_NAME}{_NUMERICAL_VERSION}""",
    "grpc_serving_client.py": f"""\
Sends requests via TFS gRPC API using images in numpy format. It displays
performance statistics and optionally the model accuracy

{_HELP_FLAG}{_IMAGES}{_GRPC_ADDRESS}{_TENSORS}{_REQUESTS}{_MODEL_NAME}""",
    "jpeg_classification.py": f"""\
Do requests to ie_serving and tf_serving using images in numpy format

{_HELP_FLAG}  --images_list IMAGES_LIST
                        path to a file with a list of labeled images
{_GRPC_ADDRESS}{_TENSORS}{_MODEL_NAME}  --size SIZE           The size of the image in the model
""",
    "rest_get_model_status.py": f"""\
Get served models status

{_HELP_FLAG}{_REST_ADDRESS}  --model_name MODEL_NAME
                        Model name to query, must be same as is in service.
                        default: resnet
  --model_version MODEL_VERSION
                        Model version to query - must be numerical. List all
                        version if omitted
""",
    "rest_get_serving_meta.py": f"""\
Get information about served models

{_HELP_FLAG}{_REST_ADDRESS}{_MODEL_NAME}{_NUMERICAL_VERSION}""",
    "rest_serving_client.py": f"""\
Sends requests via TensorFlow Serving RESTful API using images in numpy
format. It displays performance statistics and optionally the model accuracy

{_HELP_FLAG}{_IMAGES}{_REST_ADDRESS}{_TENSORS}{_REQUESTS}{_MODEL_NAME}\
  --request_format {{row_noname,row_name,column_noname,column_name}}
                        Request format according to TF Serving API:
                        row_noname,row_name,column_noname,column_name
  --model_version MODEL_VERSION
                        Model version to be used. Default: LATEST
""",
}
"""By script: everything after the usage."""
