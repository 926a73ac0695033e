"""Others' ways to call the server: the package ovmsclient over both APIs, and the notebook of the examples."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from examples.digits import png, train
from tests.support.server import HOST, ROOT, Server

pytestmark = pytest.mark.e2e

NOTEBOOK = ROOT / "examples" / "notebooks" / "rest_digits.ipynb"
MODEL = "digits"
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
SAMPLE = train.IMAGES / "7.png"


def wants(*packages: str) -> pytest.MarkDecorator:
    """Looked for without importing: the messages of ovmsclient and of tensorflow-serving-api exclude each other."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (make dev)")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("libraries")
    base = train.MODEL.parent.parent
    options: dict[str, Any] = {"model_name": MODEL, "plugin_config": json.dumps(PRECISION)}
    with Server(directory, base, device="CPU", **options) as started:
        yield started


def run_python(code: str, *words: object, environment: dict[str, str] | None = None) -> str:
    """What another interpreter prints. Raises AssertionError with its complaint."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- ovmsclient

OVMSCLIENT = """
import json, sys
import numpy, ovmsclient

api, address, version, images = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
client = {"grpc": ovmsclient.make_grpc_client, "http": ovmsclient.make_http_client}[api](address)

def refusal(call, *words):
    try:
        return str(call(*words))
    except Exception as error:
        return type(error).__name__

image = numpy.array(images, numpy.float32)
answers = [image, image.astype(numpy.float64), image.astype(numpy.uint8), images]
print(json.dumps({
    "status": {int(k): v for k, v in client.get_model_status("digits", version).items()},
    "metadata": client.get_model_metadata("digits", version),
    "answers": [client.predict({"image": one}, "digits", version).tolist() for one in answers],
    "unknown model": refusal(client.get_model_status, "nobody", version),
    "unknown version": refusal(client.get_model_metadata, "digits", 7),
    "unknown input": refusal(client.predict, {"x": image}, "digits", version),
    "wrong batch": refusal(client.predict, {"image": image.repeat(2, 0)}, "digits", version),
}))
"""


@wants("ovmsclient")
@pytest.mark.parametrize(
    ("api", "version"),
    [
        ("grpc", 0),
        ("grpc", 1),
        ("http", 1),
        ("http", 0),
    ],
)
def test_ovmsclient(server: Server, api: str, version: int) -> None:
    """Version 0 is none; over HTTP that is `versions/0` in the path."""
    port = server.grpc_port if api == "grpc" else server.rest_port
    images = [png.read(SAMPLE)]
    found = json.loads(run_python(OVMSCLIENT, api, f"{HOST}:{port}", version, json.dumps(images)))
    assert found["status"] == {"1": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    assert found["metadata"] == {
        "model_version": 1,
        "inputs": {"image": {"shape": [1, 8, 8], "dtype": "DT_FLOAT"}},
        "outputs": {"probabilities": {"shape": [1, 10], "dtype": "DT_FLOAT"}},
    }
    expected = openvino.Core().compile_model(train.MODEL, "CPU", PRECISION)(np.array(images, np.float32))[0]
    for answer in found["answers"]:
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-7)
    assert found["unknown model"] == found["unknown version"] == "ModelNotFoundError"
    assert found["unknown input"] == found["wrong batch"] == "InvalidInputError"


# ---- the notebook

EXECUTE = """
import sys
import nbclient, nbformat

source, target = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
directory = source.rpartition("/")[0]
nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": directory}}).execute()
nbformat.write(notebook, target)
"""


def outputs(notebook: dict[str, Any]) -> list[tuple[str, str]]:
    """Of all cells: what was printed, and the kinds of what was drawn."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                found.append((output["name"], "".join(output["text"])))
            else:
                found.append((output["output_type"], " ".join(sorted(output["data"]))))
    return found


@wants("nbclient", "nbformat", "ipykernel", "matplotlib", "requests")
def test_notebook(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "executed.ipynb"
    environment = {
        "IE_SERVING_URL": f"http://{HOST}:{server.rest_port}",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
    }
    run_python(EXECUTE, NOTEBOOK, target, environment=environment)
    found = outputs(json.loads(target.read_text()))
    # What it shows in the repository is what it does.
    assert found == outputs(json.loads(NOTEBOOK.read_text()))
    assert ("stdout", "found: 0 1 2 3 4 5 6 7 8 9\n10 of 10 are right\n") in found
    assert [kind for _, kind in found].count("image/png text/plain") == 2


def test_notebook_is_small_and_knows_no_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 40_000
    assert str(ROOT) not in text
    for place in ("/home/", "/root/", "ipykernel_", "site-packages"):
        assert place not in text
