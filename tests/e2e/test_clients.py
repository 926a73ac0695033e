"""The clients of examples/clients as users run them: programs that ask a server of the digits model.

What they print is compared line by line with the form that their documentation shows, and what they found with what
OpenVINO itself finds in the same images.
"""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import PIL.Image
import pytest

from examples.digits import export, train
from tests.support import client_forms
from tests.support.server import HOST, ROOT, Server, free_ports

pytestmark = pytest.mark.e2e

CLIENTS = ROOT / "examples" / "clients"
LISTED = train.IMAGES / "labeled.txt"
MODEL = "digits"
COUNT = 60
"""Held-out digits that are sent; among the first sixty there is one that the model mistakes."""
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
NUMPY_FORMS = ("row_noname", "row_name", "column_noname", "column_name")


def serve(directory: Path, **options: Any) -> Server:
    return Server(
        directory,
        train.MODEL.parent.parent,
        device="CPU",
        model_name=MODEL,
        plugin_config=json.dumps(PRECISION),
        **options,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("clients")) as started:
        yield started


class Digits:
    """The exported files, and what OpenVINO finds in them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        export.export(directory, COUNT)
        self.images_path = directory / "images.npy"
        self.labels_path = directory / "labels.npy"
        self.images = np.load(self.images_path)
        self.labels = np.load(self.labels_path).reshape(-1)
        self._compiled = openvino.Core().compile_model(train.MODEL, "CPU", PRECISION)
        self.found = [self.classify(image) for image in self.images]

    def classify(self, image: np.ndarray) -> int:
        return int(self._compiled(image[None].astype(np.float32))[0].argmax())

    def accuracy(self) -> float:
        return 100 * float(np.mean(self.found == self.labels))

    def result(self, index: int) -> str:
        """What a client says of an image whose label it knows."""
        found, label = self.found[index], int(self.labels[index])
        told = f"{export.NAMES[found]} {found} ; "
        if found == label:
            return f"{told}Correct match."
        return f"{told}Incorrect match. Should be {label} {export.NAMES[label]}"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(tmp_path_factory.mktemp("digits"))


def client(
    script: str, *words: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """A client, run as a file from a directory that is not its own."""
    return subprocess.run(
        [sys.executable, str(CLIENTS / script), *map(str, words)],
        cwd=cwd or ROOT.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "80", **(environment or {})},
    )


def answer(script: str, *words: object, **options: Any) -> str:
    """What it prints, all being well."""
    done = client(script, *words, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def address(script: str, server: Server, model: str = MODEL) -> list[object]:
    """The flags that lead to the server's model, with the loopback address by its number."""
    name = ["--model_name", model]
    if script.startswith("rest"):
        return ["--rest_url", f"http://{HOST}", "--rest_port", server.rest_port, *name]
    return ["--grpc_address", HOST, "--grpc_port", server.grpc_port, *name]


TENSORS = ("--input_name", "image", "--output_name", "probabilities")
AS_THEY_ARE = ("--transpose_input", "False")
SERVING = ("grpc_serving_client.py", "rest_serving_client.py")


@pytest.mark.parametrize("script", client_forms.HELP)
def test_help(script: str) -> None:
    usage, rest = answer(script, "--help").split("\n\n", 1)
    assert rest == client_forms.HELP[script]
    assert usage.startswith(f"usage: {script} [-h] ")


@pytest.mark.parametrize("script", ["get_model_status.py", "rest_get_model_status.py"])
@pytest.mark.parametrize("version", [(), ("--model_version", "1")])
def test_status(server: Server, script: str, version: tuple[str, ...]) -> None:
    form = [f"Getting model status for model: {MODEL}", "", *client_forms.STATUS]
    client_forms.check(answer(script, *address(script, server), *version), form)


@pytest.mark.parametrize("script", ["get_serving_meta.py", "rest_get_serving_meta.py"])
@pytest.mark.parametrize("version", [(), ("--model_version", "1")])
def test_metadata(server: Server, script: str, version: tuple[str, ...]) -> None:
    assert answer(script, *address(script, server), *version) == (
        f"Getting model metadata for model: {MODEL}\n"
        "Inputs metadata:\n"
        "\tInput name: image; shape: [1, 8, 8]; dtype: DT_FLOAT\n"
        "Outputs metadata:\n"
        "\tOutput name: probabilities; shape: [1, 10]; dtype: DT_FLOAT\n"
    )


@pytest.mark.parametrize("script", SERVING)
def test_numpy_files(server: Server, digits: Digits, script: str) -> None:
    images = ["--images_numpy_path", digits.images_path, "--labels_numpy", digits.labels_path]
    output = answer(script, *address(script, server), *TENSORS, *AS_THEY_ARE, *images)
    form = client_forms.header(MODEL, COUNT, digits.images_path, digits.images.shape)
    for index in range(COUNT):
        form += client_forms.iteration(index + 1, [digits.result(index)])
    assert 0 < digits.accuracy() < 100
    form += ["", *client_forms.STATISTICS, f"Classification accuracy: {digits.accuracy():.2f}"]
    client_forms.check(output, form)
    check_statistics(output)


def check_statistics(output: str) -> None:
    """They follow from the times of the iterations, up to the rounding of what is printed."""
    times = [
        float(text) for text in re.findall(r"^Iteration \d+; Processing time: (\S+) ms", output, re.MULTILINE)
    ]

    def stated(name: str) -> float:
        (text,) = re.findall(rf"^{name}: (\d+\.\d+)", output, re.MULTILINE)
        return float(text)

    assert stated("average time") == pytest.approx(np.mean(times), abs=0.011)
    assert stated("median time") == stated("time percentile 50") == pytest.approx(np.median(times), abs=0.011)
    assert stated("max time") == max(times)
    assert stated("min time") == min(times)
    assert stated("time percentile 90") == pytest.approx(np.percentile(times, 90), abs=0.011)
    assert stated("time standard deviation") == pytest.approx(np.std(times), abs=0.011)
    assert stated("time variance") == pytest.approx(np.var(times), abs=0.02, rel=0.02)
    pace = float(re.findall(r"median speed: (\S+) fps", output)[0])
    assert pace == pytest.approx(1000 / np.median(times), rel=0.02)


@pytest.mark.parametrize("request_format", NUMPY_FORMS)
def test_formats_of_rest(server: Server, digits: Digits, request_format: str) -> None:
    script = "rest_serving_client.py"
    words = ["--images_numpy_path", digits.images_path, "--request_format", request_format]
    words += ["--iterations", 3, "--model_version", 1]
    output = answer(script, *address(script, server), *TENSORS, *AS_THEY_ARE, *words)
    form = client_forms.header(MODEL, 3, digits.images_path, digits.images.shape)
    for index in range(3):
        # Without labels there is nothing to compare with, and no accuracy.
        found = digits.found[index]
        form += client_forms.iteration(index + 1, [f"{export.NAMES[found]} {found}"])
    client_forms.check(output, [*form, "", *client_forms.STATISTICS])


def test_classes_without_names(server: Server, digits: Digits, tmp_path: Path) -> None:
    script = "grpc_serving_client.py"
    np.save(tmp_path / "one.npy", digits.images[:1])
    words = ["--images_numpy_path", tmp_path / "one.npy"]
    output = answer(script, *address(script, server), *TENSORS, *AS_THEY_ARE, *words)
    assert f"\t 0 {digits.found[0]}\n" in output


@pytest.mark.slow
def test_batches(digits: Digits, tmp_path: Path) -> None:
    with serve(tmp_path, batch_size="auto") as batching:
        for script in SERVING:
            images = ["--images_numpy_path", digits.images_path, "--labels_numpy_path", digits.labels_path]
            words = [*images, "--batchsize", 25]
            output = answer(script, *address(script, batching), *TENSORS, *AS_THEY_ARE, *words)
            form = client_forms.header(MODEL, 3, digits.images_path, digits.images.shape)
            # Sixty images fill two requests and a part of the third, which goes on with the first ones.
            sent = [index % COUNT for index in range(75)]
            for number in range(3):
                results = [digits.result(index) for index in sent[25 * number : 25 * number + 25]]
                form += client_forms.iteration(number + 1, results)
            right = 100 * np.mean([digits.found[index] == digits.labels[index] for index in sent])
            accuracy = f"Classification accuracy: {right:.2f}"
            client_forms.check(output, [*form, "", *client_forms.STATISTICS, accuracy])
            pace, time = map(float, re.findall(r"max time: (\S+) ms; max speed: (\S+) fps", output)[0][::-1])
            assert pace == pytest.approx(25_000 / time, rel=0.02)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_image_files(server: Server, digits: Digits, kind: str) -> None:
    script = "jpeg_classification.py"
    listed = digits.directory / f"{kind}.txt"
    words = ["--images_list", listed, "--size", 8]
    output = answer(script, *address(script, server), *TENSORS, *words)
    form = [f"\tModel name: {MODEL}", f"\tImages list file: {re.escape(str(listed))}", ""]
    right = 0
    for line, label in zip(listed.read_text().splitlines(), digits.labels, strict=True):
        name = line.split()[0]
        with PIL.Image.open(digits.directory / name) as image:
            pixels = np.asarray(image, np.float32)
        found = digits.classify(pixels)
        right += found == label
        data_range = (float(pixels.min()), float(pixels.max()))
        form += client_forms.picture(name, (1, 8, 8), data_range, found, int(label))
    form += ["", f"Overall accuracy= {round(100 * right / COUNT, 2)}"]
    client_forms.check(output, form)


def test_images_of_the_repository(server: Server) -> None:
    script = "jpeg_classification.py"
    words = ["--images_list", "labeled.txt", "--size", 8]
    output = answer(script, *address(script, server), *TENSORS, *words, cwd=LISTED.parent)
    assert re.findall(r"^Detected: (\d)  Should be: (\d)$", output, re.MULTILINE) == [
        (digit, digit) for digit in "0123456789"
    ]
    assert output.endswith("\n\nOverall accuracy= 100.0\n")


def test_pictures_of_another_size_and_colour_are_fitted(server: Server, tmp_path: Path) -> None:
    with PIL.Image.open(train.IMAGES / "3.png") as image:
        image.convert("RGB").resize((64, 64), PIL.Image.Resampling.NEAREST).save(tmp_path / "big three.png")
    (tmp_path / "list").write_text("\nbig three.png 3\n\n")
    script = "jpeg_classification.py"
    words = ["--images_list", tmp_path / "list", "--size", 8]
    output = answer(script, *address(script, server), *TENSORS, *words)
    assert "big three.png (1, 8, 8) ; data range: " in output
    assert "Detected: 3  Should be: 3\n" in output


# ---- what goes wrong


@pytest.mark.parametrize("script", client_forms.HELP)
def test_unreachable(digits: Digits, script: str) -> None:
    (port,) = free_ports(1)
    where = ["--rest_port", port] if script.startswith("rest") else ["--grpc_port", port]
    images = ["--images_numpy_path", digits.images_path, *AS_THEY_ARE] if script in SERVING else []
    listed = ["--images_list", LISTED] if script == "jpeg_classification.py" else []
    refused(client(script, *where, *images, *listed), rf"localhost:{port}: .*Connection refused")


@pytest.mark.parametrize("script", client_forms.HELP)
def test_unknown_model(server: Server, digits: Digits, script: str) -> None:
    images = ["--images_numpy_path", digits.images_path, *AS_THEY_ARE] if script in SERVING else []
    listed = ["--images_list", LISTED] if script == "jpeg_classification.py" else []
    done = client(script, *address(script, server, "nobody"), *images, *listed)
    refused(done, r"(NOT_FOUND|404): Servable not found for request: Specific\(nobody, 0\)")


@pytest.mark.parametrize("script", SERVING)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--images_numpy_path", "missing.npy"], "missing.npy cannot be read: No such file or directory"),
        (["--images_numpy_path", "digits.txt"], "digits.txt is no file of a numpy array"),
        (["--images_numpy_path", "two.npz"], "two.npz holds several arrays"),
        (["--images_numpy_path", "words.npy"], "words.npy holds <U3, not numbers"),
        (["--images_numpy_path", "none.npy"], r"there are no images in an array of the shape \(0, 8, 8\)"),
        (["--images_numpy_path", "wide.npy"], r"Obtained shape \[1, 9, 9\], required shape \[1, 8, 8\]"),
        (
            ["--images_numpy_path", "good.npy", "--batchsize", "2"],
            "Obtained batch size 2, required batch size 1",
        ),
        (["--images_numpy_path", "good.npy", "--output_name", "x"], "no output 'x'; it has probabilities"),
        (["--images_numpy_path", "good.npy", "--labels_numpy_path", "few.npy"], "has 1 labels for 2 images"),
        (["--images_numpy_path", "good.npy", "--transpose_input", "True"], "--transpose_input False"),
    ],
)
def test_wrong_files_and_shapes(
    server: Server, tmp_path: Path, script: str, words: list[str], reason: str
) -> None:
    (tmp_path / "digits.txt").write_text("these are no digits\n")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    np.save(tmp_path / "words.npy", np.array(["one"]))
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8), np.float32))
    np.save(tmp_path / "wide.npy", np.zeros((2, 9, 9), np.float32))
    np.save(tmp_path / "good.npy", np.zeros((2, 8, 8), np.float32))
    np.save(tmp_path / "few.npy", np.zeros((1, 1), np.int64))
    # An output that a REST answer does not name cannot be missed.
    if "--output_name" in words and script.startswith("rest"):
        assert client(script, *address(script, server), *AS_THEY_ARE, *words, cwd=tmp_path).returncode == 0
        return
    options = [*TENSORS, *AS_THEY_ARE, *words]
    refused(client(script, *address(script, server), *options, cwd=tmp_path), reason)


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (None, "list cannot be read: No such file or directory"),
        ("a.png", "list, line 1: a path and the number of a class are wanted"),
        ("\n\n", "list names no images"),
        ("gone.png 1", r"gone\.png cannot be read: No such file or directory"),
        ("list 1", "list cannot be read: it is no image that Pillow can read"),
    ],
)
def test_wrong_lists(server: Server, tmp_path: Path, listed: str | None, reason: str) -> None:
    if listed is not None:
        (tmp_path / "list").write_text(listed)
    script = "jpeg_classification.py"
    words = [*TENSORS, "--size", 8, "--images_list", "list"]
    refused(client(script, *address(script, server), *words, cwd=tmp_path), reason)


def test_unknown_input_is_refused_in_the_known_words(server: Server) -> None:
    script = "jpeg_classification.py"
    done = client(script, *address(script, server), "--images_list", LISTED)
    refused(done, r"input tensor alias not found in signature: \['input'\]")


def refused(done: "subprocess.CompletedProcess[str]", reason: str) -> None:
    """One line on standard error that says why, and 1."""
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(reason, line), line


# ---- on a terminal


def on_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a program writes to the terminal that both its outputs are."""
    master, slave = pty.openpty()
    # A new one has no size, and on such a terminal tqdm draws nothing.
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    written = b""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=environment
    ) as run:
        os.close(slave)
        try:
            while more := os.read(master, 65536):
                written += more
        except OSError:
            pass  # Linux's way to say that nobody has the terminal open any more
        finally:
            os.close(master)
    assert run.returncode == 0, written
    return written.decode()


@pytest.mark.parametrize("there", [True, False])
def test_progress_bar(server: Server, digits: Digits, tmp_path: Path, there: bool) -> None:
    if not there:
        (tmp_path / "tqdm.py").write_text("raise ImportError\n")
    script = "grpc_serving_client.py"
    words = [*address(script, server), *TENSORS, *AS_THEY_ARE, "--images_numpy_path", digits.images_path]
    command = [sys.executable, str(CLIENTS / script), *map(str, words)]
    output = on_terminal(command, {**os.environ, "PYTHONPATH": str(tmp_path), "TERM": "xterm"})
    assert ("/60 [" in output) is there
    assert f"Iteration {COUNT}; Processing time" in output
    assert output.count("Iteration ") == COUNT
