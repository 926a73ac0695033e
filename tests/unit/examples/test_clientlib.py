"""What the example clients share, as far as it starts no process and asks no server."""

import argparse
import ast
import sys
from pathlib import Path

import clientlib
import numpy as np
import pytest
from clientlib import answers, datasets, options, pictures, report, serving_rest, tensors
from clientlib.addresses import is_local
from clientlib.errors import ClientError
from clientlib.protos import tensor_pb2, types_pb2
from PIL import Image

LIBRARIES = {"clientlib", "grpc", "numpy", "PIL", "requests", "tensorflow", "tensorflow_serving", "tqdm"}
CLIENTS = Path(clientlib.__file__).parents[1]


@pytest.mark.parametrize("path", sorted(CLIENTS.rglob("*.py")), ids=lambda path: path.name)
def test_clients_need_nothing_of_the_server(path: Path) -> None:
    """Nor anything else that their requirements do not name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    assert found - LIBRARIES - sys.stdlib_module_names == set()


# ---- tensors


@pytest.mark.parametrize("dtype", tensors.NUMPY_TYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape), dtype=np.int64).reshape(shape) % 2).astype(dtype)
    proto = tensors.to_proto(array)
    assert types_pb2.DataType.Name(proto.dtype) in tensors.NUMPY_TYPES
    back = tensors.to_array(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_other_byte_orders_and_strides_are_sent_as_they_read() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    np.testing.assert_array_equal(tensors.to_array(tensors.to_proto(array)), array)


@pytest.mark.parametrize(
    ("data_type", "field", "values", "expected"),
    [
        ("DT_FLOAT", "float_val", [1.5, 2.5], [1.5, 2.5]),
        ("DT_DOUBLE", "double_val", [0.1], [0.1, 0.1]),
        ("DT_INT8", "int_val", [-3, 4], [-3, 4]),
        ("DT_INT64", "int64_val", [2**60, 1], [2**60, 1]),
        ("DT_UINT64", "uint64_val", [2**63], [2**63, 2**63]),
        ("DT_HALF", "half_val", [0x3C00, 0xC000], [1.0, -2.0]),
        ("DT_BOOL", "bool_val", [True], [True, True]),
    ],
)
def test_typed_fields(data_type: str, field: str, values: list[float], expected: list[float]) -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(data_type), **{field: values})
    proto.tensor_shape.dim.add(size=2)
    assert tensors.to_array(proto).tolist() == expected


def test_values_that_do_not_fit_are_an_error() -> None:
    proto = tensors.to_proto(np.zeros(4, np.float32))
    proto.tensor_shape.dim[0].size = 3
    with pytest.raises(ClientError, match=r"4 values for the shape \[3\]"):
        tensors.to_array(proto)
    with pytest.raises(ClientError, match="DT_STRING"):
        tensors.to_array(tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"]))
    with pytest.raises(ClientError, match="complex64"):
        tensors.to_proto(np.zeros(1, np.complex64))


# ---- numpy files


def save(directory: Path, images: np.ndarray, labels: np.ndarray | None = None) -> tuple[str, str | None]:
    np.save(directory / "images.npy", images)
    if labels is None:
        return str(directory / "images.npy"), None
    np.save(directory / "labels.npy", labels)
    return str(directory / "images.npy"), str(directory / "labels.npy")


@pytest.mark.parametrize(
    ("method", "shape"), [("nhwc2nchw", (2, 3, 4, 5)), ("nchw2nhwc", (2, 5, 3, 4)), (None, (2, 4, 5, 3))]
)
def test_transposition(tmp_path: Path, method: str | None, shape: tuple[int, ...]) -> None:
    images = np.arange(120).reshape(2, 4, 5, 3)
    found = datasets.load(*save(tmp_path, images), method).images
    assert found.shape == shape
    if method == "nhwc2nchw":
        np.testing.assert_array_equal(found[1, 2], images[1, :, :, 2])
    elif method == "nchw2nhwc":
        np.testing.assert_array_equal(found[1, :, :, 3], images[1, 3])


def test_batches_begin_again_at_the_end(tmp_path: Path) -> None:
    images, labels = np.arange(5.0)[:, None], np.arange(5)[:, None]
    dataset = datasets.load(*save(tmp_path, images, labels), None)
    assert datasets.requests_for_all(dataset, 2) == 3
    assert datasets.requests_for_all(dataset, 5) == 1
    sent = [
        (batch[:, 0].tolist(), None if found is None else found.tolist())
        for batch, found in datasets.batches(dataset, 2, 4)
    ]
    assert sent == [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([4, 0], [4, 0]), ([1, 2], [1, 2])]
    (twice,) = datasets.batches(dataset, 7, 1)
    assert twice[0][:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    images = np.zeros((2, 1))
    found = datasets.load(*save(tmp_path, images, np.array([[1.0], [2.0]])), None).labels
    assert found is not None
    assert found.tolist() == [1, 2]
    with pytest.raises(ClientError, match="whole numbers"):
        datasets.load(*save(tmp_path, images, np.array([0.5, 1])), None)


def test_names_of_classes(tmp_path: Path) -> None:
    assert datasets.read_names(tmp_path / "labels.txt") == []
    (tmp_path / "labels.txt").write_text("tench, Tinca tinca\ngoldfish\n\n", encoding="utf-8")
    assert datasets.read_names(tmp_path / "labels.txt") == ["tench, Tinca tinca", "goldfish"]
    (tmp_path / "labels.txt").write_bytes(b"\xff")
    with pytest.raises(ClientError, match=r"labels\.txt cannot be read"):
        datasets.read_names(tmp_path / "labels.txt")


# ---- pictures


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 224, 224), (3, "NCHW")),
        ((-1, 3, -1, -1), (3, "NCHW")),
        ((1, 224, 224, 3), (3, "NHWC")),
        ((1, 1, 28, 28), (1, "NCHW")),
        ((1, 28, 28, 1), (1, "NHWC")),
        ((1, 8, 8), (1, "NHW")),
        ((1, 10), (3, "NCHW")),
        ((), (3, "NCHW")),
    ],
)
def test_layout(shape: tuple[int, ...], layout: tuple[int, str]) -> None:
    assert pictures.layout_of(shape, "uint8") == (*layout, "uint8")


def test_pixels_are_laid_out_for_the_model(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 2), (10, 20, 30))
    image.putpixel((1, 0), (40, 50, 60))
    image.save(tmp_path / "a.png")
    named = pictures.Labelled("a.png", tmp_path / "a.png", 0)
    planes = pictures.load(named, 2, pictures.Layout(3, "NCHW"))
    assert (planes.shape, planes.dtype.name) == ((1, 3, 2, 2), "float32")
    assert planes[0, :, 0, 0].tolist() == [30, 20, 10]
    assert planes[0, :, 0, 1].tolist() == [60, 50, 40]
    points = pictures.load(named, 2, pictures.Layout(3, "NHWC", "uint8"))
    assert points.dtype == np.uint8
    np.testing.assert_array_equal(points.transpose(0, 3, 1, 2), planes)
    assert pictures.load(named, 5, pictures.Layout(1, "NCHW")).shape == (1, 1, 5, 5)
    assert pictures.load(named, 5, pictures.Layout(1, "NHWC")).shape == (1, 5, 5, 1)
    assert pictures.load(named, 5, pictures.Layout(1, "NHW")).shape == (1, 5, 5)


def test_list_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a b.png 12\n\n /somewhere/c.jpeg\t3 \n")
    found = pictures.read_list(str(tmp_path / "list.txt"))
    assert [(one.name, one.path, one.label) for one in found] == [
        ("a b.png", tmp_path / "a b.png", 12),
        ("/somewhere/c.jpeg", Path("/somewhere/c.jpeg"), 3),
    ]


# ---- what is printed


def test_status_has_the_newest_version_first() -> None:
    first = answers.VersionStatus(1, "LOADING", 2, "Error occurred while loading version")
    second = answers.VersionStatus(2, "AVAILABLE", 0, "")
    assert "\n".join(answers.status_lines("resnet", [first, second])) == (
        "Getting model status for model: resnet\n\n"
        "Model version: 2\nState AVAILABLE\nError code:  0\nError message:\n\n"
        "Model version: 1\nState LOADING\nError code:  2\nError message:  Error occurred while loading version"
    )


def test_metadata() -> None:
    data = answers.Tensor("data", [1, 3, 224, 224], "DT_FLOAT")
    prob = answers.Tensor("prob", [1, 1000], "DT_FLOAT")
    assert answers.metadata_lines("resnet", answers.Metadata([data], [prob])) == [
        "Getting model metadata for model: resnet",
        "Inputs metadata:",
        "\tInput name: data; shape: [1, 3, 224, 224]; dtype: DT_FLOAT",
        "Outputs metadata:",
        "\tOutput name: prob; shape: [1, 1000]; dtype: DT_FLOAT",
    ]


def test_lines_of_a_request() -> None:
    names = ["arctic fox", "bee", "zebra"]
    assert report.iteration_line(1, 4, 80.0) == "Iteration 1; Processing time: 80.00 ms; speed 50.00 fps"
    assert report.picture_line(80.0) == "Processing time: 80.00 ms; speed 12.50 fps 12.5"
    assert report.top_lines(np.array([2, 0]), np.array([1, 0]), names) == [
        "imagenet top results in a single batch:",
        "\t 0 zebra 2 ; Incorrect match. Should be 1 bee",
        "\t 1 arctic fox 0 ; Correct match.",
    ]
    assert report.top_lines(np.array([2]), np.array([7]), [])[1:] == ["\t 0 2 ; Incorrect match. Should be 7"]
    assert report.top_lines(np.array([1]), None, names)[1:] == ["\t 0 bee 1"]


def test_summary() -> None:
    assert report.summary_lines([10.0, 20.0, 60.0], 2) == [
        "processing time for all iterations",
        "average time: 30.00 ms; average speed: 66.67 fps",
        "median time: 20.00 ms; median speed: 100.00 fps",
        "max time: 60.00 ms; max speed: 33.33 fps",
        "min time: 10.00 ms; min speed: 200.00 fps",
        "time percentile 90: 52.00 ms; speed percentile 90: 38.46 fps",
        "time percentile 50: 20.00 ms; speed percentile 50: 100.00 fps",
        "time standard deviation: 21.60",
        "time variance: 466.67",
    ]


def test_classes() -> None:
    assert report.classes_of(np.array([[0, 1], [3, 2]]), 2).tolist() == [1, 0]
    background = np.zeros((1, 1001))
    background[0, 280] = 1
    assert report.classes_of(background, 1).tolist() == [279]
    names = [str(number) for number in range(1000)]
    assert report.names_for(names, background) == names
    assert report.names_for(names, np.zeros((1, 1000))) == names
    assert report.names_for(names, np.zeros((1, 10))) == ()
    for wrong in (np.zeros(()), np.zeros(2), np.zeros((1, 2)), np.zeros((2, 0))):
        with pytest.raises(ClientError, match="does not tell the classes of 2 images"):
            report.classes_of(wrong, 2)


# ---- the rest


@pytest.mark.parametrize(
    ("request_format", "body"),
    [
        ("row_noname", b'{"instances": [[1, 2], [3, 4]]}'),
        ("row_name", b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}'),
        ("column_noname", b'{"inputs": [[1, 2], [3, 4]]}'),
        ("column_name", b'{"inputs": {"x": [[1, 2], [3, 4]]}}'),
    ],
)
def test_bodies(request_format: str, body: bytes) -> None:
    assert serving_rest.encode(np.array([[1, 2], [3, 4]]), "x", request_format) == body


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("models.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_local_hosts(host: str, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", ""])
def test_numbers_below_one_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number of 1 or more"):
        options.one_or_more(text)
    assert options.one_or_more("1") == 1
    assert options.zero_or_more("0") == 0
