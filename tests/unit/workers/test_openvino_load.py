"""What the real engine makes of a version's directory and a model's options."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from common.config import ClassificationConfig, ModelConfig, RegressionConfig
from common.tensors import Heads, TensorSpec
from tests.support.model_formats import FORMATS
from tests.unit.workers.conftest import Bench
from tests.unit.workers.models import model_config, named, parameter, save
from workers.compile_cache import CompileCache
from workers.engine import LoadError, Model, ShapeError, VariableModel
from workers.openvino_api import release
from workers.openvino_compiler import OpenVinoVariants
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel

Load = Callable[..., Model]
LoadVariants = Callable[..., OpenVinoVariants]
FILES = {
    "onnx": "model.onnx",
    "frozen graph": "frozen.pb",
    "SavedModel": "saved_model.pb",
    "TensorFlow Lite": "model.tflite",
    "PaddlePaddle": "model.pdmodel",
}
KNOWN = f"OpenVINO {release()} here knows {', '.join(ov.Core().available_devices)}"


@pytest.fixture(scope="module")
def engine() -> OpenVinoEngine:
    return OpenVinoEngine("CPU", 1)


@pytest.fixture
def closed(bench: Bench) -> Iterator[list[Model | VariableModel]]:
    """What is put in here is closed before the memory is."""
    models: list[Model | VariableModel] = []
    yield models
    while models:
        models.pop().close()
    gc.collect()


@pytest.fixture
def load(engine: OpenVinoEngine, closed: list[Model | VariableModel]) -> Load:
    """Loads versions of which requests do not bring their shapes."""

    def load_path(path: Path, engine: OpenVinoEngine = engine, **options: Any) -> Model:
        model = engine.load(path, model_config(**options))
        assert isinstance(model, OpenVinoModel)
        closed.append(model)
        return model

    return load_path


@pytest.fixture
def load_variants(engine: OpenVinoEngine, closed: list[Model | VariableModel]) -> LoadVariants:
    """Loads those of which they do."""

    def load_path(path: Path, **options: Any) -> OpenVinoVariants:
        model = engine.load(path, model_config(**options))
        assert isinstance(model, OpenVinoVariants)
        closed.append(model)
        return model

    return load_path


def relu(path: Path, *shape: int) -> Path:
    x = parameter("x", "float32", shape)
    return save(path, [named(op.relu(x), "y")], [x])


def matmul(path: Path, *shape: int) -> Path:
    """The last dimension has to be 4."""
    x = parameter("x", "float32", shape)
    return save(path, [named(op.matmul(x, np.ones((4, 2), np.float32), False, False), "y")], [x])


def add(path: Path, *shapes: tuple[int, ...]) -> Path:
    x, y = parameter("x", "float32", shapes[0]), parameter("y", "float32", shapes[1])
    return save(path, [named(op.add(x, y), "sum")], [x, y])


def stiff(path: Path) -> Path:
    """A model that has its shape written into it."""
    x = parameter("x", "float32", (2, 3))
    return save(path, [named(op.reshape(x, np.array([3, 2]), False), "y")], [x])


def shapes(model: Model | VariableModel) -> list[tuple[int, ...]]:
    return [spec.shape for spec in (*model.signature.inputs, *model.signature.outputs)]


# ---- formats


@pytest.mark.parametrize("shape", [(2, 3), (-1, 3)])
@pytest.mark.parametrize("kind", FORMATS)
def test_formats(load: Load, bench: Bench, tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    FORMATS[kind](tmp_path, shape)
    model = load(tmp_path)
    assert shapes(model) == [shape, shape]
    for _ in range(2):
        (output,) = bench.infer(model, [np.array([[-1, 2, -3], [4, -5, 6]], np.float32)])
        np.testing.assert_array_equal(output, [[0, 2, 0], [4, 0, 6]])


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 4096, b"\xff" * 64], ids=str)
@pytest.mark.parametrize("kind", FORMATS)
def test_corrupt_files(engine: OpenVinoEngine, tmp_path: Path, kind: str, content: bytes) -> None:
    FORMATS[kind](tmp_path, (2, 3))
    file = tmp_path / FILES[kind]
    file.write_bytes(content)
    with pytest.raises(LoadError) as raised:
        engine.load(tmp_path, model_config())
    assert str(tmp_path) not in raised.value.reason
    assert ".cpp" not in raised.value.reason


@pytest.mark.parametrize("kind", FORMATS)
def test_half_copied_files(engine: OpenVinoEngine, tmp_path: Path, kind: str) -> None:
    FORMATS[kind](tmp_path, (2, 3))
    file = tmp_path / FILES[kind]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadError):
        engine.load(tmp_path, model_config())


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("model.xml", b"", r"^model\.xml cannot be read: "),
        ("model.xml", b"<net", r"^model\.xml cannot be read: "),
        ("model.xml", b"<net></net>", r"^model\.xml cannot be read: "),
        ("model.bin", b"", r"^model\.xml cannot be read: "),
        ("model.bin", b"\0" * 16, r"^model\.xml cannot be read: "),
    ],
)
def test_ir_that_is_not_whole(
    engine: OpenVinoEngine, tmp_path: Path, file: str, content: bytes, text: str
) -> None:
    matmul(tmp_path, 1, 4)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(LoadError, match=text) as raised:
        engine.load(tmp_path, model_config())
    assert str(tmp_path) not in raised.value.reason


# ---- layouts, classes and values


def image_input(path: Path, layout: str, *shape: int) -> Path:
    """An input of that layout, and an output that is two scores and one that is a value."""
    x = parameter("x", "float32", shape)
    if layout:
        x.set_layout(ov.Layout(layout))
    flat = op.reshape(x, np.array([shape[0], -1]), False)
    scores = named(op.slice(flat, [0], [2], [1], [1]), "scores")
    return save(path, [scores, named(op.reduce_sum(flat, 1, False), "value")], [x])


@pytest.mark.parametrize(
    ("own", "options", "layout"),
    [
        ("", {}, ""),
        ("NHWC", {}, "NHWC"),
        ("N?HW", {}, ""),
        ("N...", {}, ""),
        ("NHWC", {"": "NCHW"}, "NCHW"),
        ("", {"x": "NCHW"}, "NCHW"),
    ],
)
def test_layouts(load: Load, tmp_path: Path, own: str, options: dict[str, str], layout: str) -> None:
    model = load(image_input(tmp_path, own, 1, 3, 4, 3), layout=options)
    assert [spec.layout for spec in model.signature.inputs] == [layout]
    assert [spec.layout for spec in model.signature.outputs] == ["", ""]


def test_variants_keep_layouts_and_uses(load_variants: LoadVariants, bench: Bench, tmp_path: Path) -> None:
    path = matmul(tmp_path, 2, 4)
    (path / "labels.txt").write_text("cat\ndog\n")
    model = load_variants(
        path, batch_size="auto", layout={"x": "NC"}, classification=ClassificationConfig("y", top_k=1)
    )
    assert model.signature.inputs[0].layout == "NC"
    assert model.signature.heads == Heads("y", ("cat", "dog"), 1)
    variant = model.compile(((5, 4),))
    assert variant.signature.heads == model.signature.heads
    variant.close()


def test_uses_of_outputs(load: Load, tmp_path: Path) -> None:
    path = image_input(tmp_path, "", 1, 3, 4, 3)
    (path / "names.txt").write_text("cat\ndog\n")
    model = load(
        path,
        classification=ClassificationConfig("scores", "names.txt", 5),
        regression=RegressionConfig("value"),
    )
    assert model.signature.heads == Heads("scores", ("cat", "dog"), 5, "value")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layout": {"": "NC"}}, "layout NC of input 'x' has 2 letters"),
        ({"layout": {"y": "NCHW"}}, "layout names 'y', which is no input"),
        ({"classification": ClassificationConfig("prob")}, "it has scores, value"),
        ({"regression": RegressionConfig("prob")}, "it has scores, value"),
        ({"classification": ClassificationConfig(labels="names.txt")}, "holds no names.txt"),
    ],
)
def test_layouts_and_uses_that_do_not_fit(
    engine: OpenVinoEngine, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LoadError) as caught:
        engine.load(image_input(tmp_path, "", 1, 3, 4, 3), model_config(**options))
    assert reason in caught.value.reason


def test_labels_that_do_not_fit_are_noted(load: Load, tmp_path: Path) -> None:
    path = matmul(tmp_path, 2, 4)
    (path / "labels.txt").write_text("cat")
    model = load(path)
    assert model.signature.heads == Heads()
    assert model.notes == ("there are 1 labels for 2 scores: classes go by their numbers",)


# ---- names


def test_aliases_take_the_place_of_names(load: Load, bench: Bench, tmp_path: Path) -> None:
    add(tmp_path, (2,), (2,))
    (tmp_path / "mapping_config.json").write_text('{"inputs": {"y": "right"}, "outputs": {"sum": "total"}}')
    model = load(tmp_path)
    assert [spec.name for spec in model.signature.inputs] == ["x", "right"]
    assert [spec.name for spec in model.signature.outputs] == ["total"]
    (output,) = bench.infer(model, [np.array([1, 2], np.float32), np.array([10, 20], np.float32)])
    np.testing.assert_array_equal(output, [11, 22])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"inputs": {"z": "a"}}', "'z' is not one of the model's inputs: x, y"),
        ('{"inputs": {"x": "y"}}', "two inputs would be named 'y'"),
        ("{", "mapping_config.json: "),
    ],
)
def test_aliases_that_are_wrong(engine: OpenVinoEngine, tmp_path: Path, text: str, reason: str) -> None:
    add(tmp_path, (2,), (2,))
    (tmp_path / "mapping_config.json").write_text(text)
    with pytest.raises(LoadError, match=reason):
        engine.load(tmp_path, model_config())


# ---- shapes that are fixed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 5}, [(5, 4), (5, 2)]),
        ({"shape": {"": (7, 4)}}, [(7, 4), (7, 2)]),
        ({"shape": {"x": (2, 3, 4)}}, [(2, 3, 4), (2, 3, 2)]),
        ({"shape": {"x": (-1, 4)}}, [(-1, 4), (-1, 2)]),
        ({"shape": {"x": (6, 4)}, "batch_size": 5}, [(6, 4), (6, 2)]),
    ],
)
def test_reshaped_once(
    load: Load, bench: Bench, tmp_path: Path, options: dict[str, Any], expected: list[tuple[int, ...]]
) -> None:
    model = load(matmul(tmp_path, 1, 4), **options)
    assert shapes(model) == expected
    given = np.ones([max(2, length) for length in expected[0]], np.float32)
    (output,) = bench.infer(model, [given])
    np.testing.assert_array_equal(output, np.full((*given.shape[:-1], 2), 4, np.float32))


def test_every_input_gets_the_batch(load: Load, tmp_path: Path) -> None:
    assert shapes(load(add(tmp_path, (1, 3), (1, 3)), batch_size=8)) == [(8, 3), (8, 3), (8, 3)]


def test_shape_by_alias(load: Load, tmp_path: Path) -> None:
    relu(tmp_path, 1, 3)
    (tmp_path / "mapping_config.json").write_text('{"inputs": {"x": "data"}}')
    assert shapes(load(tmp_path, shape={"data": (2, 5)})) == [(2, 5), (2, 5)]
    assert shapes(load(tmp_path, shape={"x": (3, 5)})) == [(3, 5), (3, 5)]


@pytest.mark.parametrize("options", [{"shape": {"x": (5, 3)}}, {"batch_size": 5}])
def test_model_that_cannot_be_reshaped_keeps_its_shape_and_says_why(
    load: Load, bench: Bench, tmp_path: Path, options: dict[str, Any]
) -> None:
    model = load(stiff(tmp_path), **options)
    assert shapes(model) == [(2, 3), (3, 2)]
    (note,) = model.notes
    assert note.startswith("the model keeps its own shape, for it cannot be reshaped to x (5,3): ")
    assert "Requested output shape" in note
    assert ".cpp" not in note
    bench.infer(model, [np.ones((2, 3), np.float32)])


@pytest.mark.parametrize(
    ("shape", "reason"),
    [({"z": (1, 3)}, "no input of the model; it has x, y"), ({"": (1, 3)}, "shape must name them")],
)
def test_shape_for_what_is_not_there(
    engine: OpenVinoEngine, tmp_path: Path, shape: dict[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(LoadError, match=reason):
        engine.load(add(tmp_path, (1, 3), (1, 3)), model_config(shape=shape))


# ---- shapes that requests bring


def test_batches_that_requests_bring(load_variants: LoadVariants, bench: Bench, tmp_path: Path) -> None:
    source = load_variants(matmul(tmp_path, 1, 4), batch_size="auto")
    assert shapes(source) == [(-1, 4), (-1, 2)]
    first = source.take_first()
    assert first is not None
    assert first[0] == ((1, 4),)
    compiled = {
        first[0]: first[1],
        ((3, 4),): source.compile(((3, 4),)),
        ((5, 4),): source.compile(((5, 4),)),
    }
    for _ in range(2):
        for (shape,), model in compiled.items():
            run = bench.prepare(model, [np.ones(shape, np.float32)])
            run.binding.outputs = [None]
            result = bench.wait(model, run)
            assert result.shapes == ((shape[0], 2),)
            assert result.data == (np.full((shape[0], 2), 4, np.float32).tobytes(),)
    for model in compiled.values():
        model.close()


def test_shape_that_the_model_cannot_take(load_variants: LoadVariants, tmp_path: Path) -> None:
    source = load_variants(matmul(tmp_path, 1, 4), shape="auto")
    assert shapes(source) == [(-1, -1), (-1, 2)]
    for _ in range(2):
        with pytest.raises(ShapeError, match="Incompatible MatMul matrix dimension") as raised:
            source.compile(((1, 5),))
        assert ".cpp" not in raised.value.reason
        source.compile(((2, 4),)).close()


def test_auto_for_a_model_that_has_its_shape_written_into_it(
    load_variants: LoadVariants, tmp_path: Path
) -> None:
    source = load_variants(stiff(tmp_path), batch_size="auto")
    assert shapes(source) == [(-1, 3), (3, 2)]
    with pytest.raises(ShapeError, match="Requested output shape"):
        source.compile(((4, 3),))
    source.compile(((2, 3),)).close()


def test_auto_where_the_model_is_open_already_needs_no_variants(load: Load, tmp_path: Path) -> None:
    assert shapes(load(relu(tmp_path / "1", -1, 3), batch_size="auto")) == [(-1, 3), (-1, 3)]
    assert shapes(load(relu(tmp_path / "2", -1, -1), shape="auto")) == [(-1, -1), (-1, -1)]


def test_auto_for_a_model_that_is_partly_open(load_variants: LoadVariants, tmp_path: Path) -> None:
    source = load_variants(relu(tmp_path, -1, 3), shape="auto")
    assert source.take_first() is None
    assert shapes(source) == [(-1, -1), (-1, -1)]
    model = source.compile(((2, 5),))
    assert shapes(model) == [(2, 5), (2, 5)]
    model.close()


def test_zero_rows(load_variants: LoadVariants, bench: Bench, tmp_path: Path) -> None:
    model = load_variants(matmul(tmp_path, 1, 4), batch_size="auto").compile(((0, 4),))
    run = bench.prepare(model, [np.ones((0, 4), np.float32)])
    run.binding.outputs = [None]
    assert bench.wait(model, run).shapes == ((0, 2),)
    model.close()


def test_output_that_depends_on_data_stays_open(load_variants: LoadVariants, tmp_path: Path) -> None:
    x = parameter("x", "float32", (4,))
    save(tmp_path, [named(op.non_zero(x), "found")], [x])
    source = load_variants(tmp_path, shape="auto")
    assert shapes(source) == [(-1,), (1, -1)]
    source.compile(((7,),)).close()


def test_variants_have_the_names_of_aliases(load_variants: LoadVariants, tmp_path: Path) -> None:
    relu(tmp_path, 1, 3)
    (tmp_path / "mapping_config.json").write_text('{"inputs": {"x": "data"}, "outputs": {"y": "prob"}}')
    source = load_variants(tmp_path, shape="auto")
    model = source.compile(((2, 2),))
    for signature in (source.signature, model.signature):
        assert (signature.inputs[0].name, signature.outputs[0].name) == ("data", "prob")
    model.close()


# ---- devices


@pytest.mark.parametrize("device", ["MYRIAD", "HDDL", "NOSUCH"])
def test_device_that_this_openvino_does_not_know(tmp_path: Path, device: str) -> None:
    with pytest.raises(LoadError) as raised:
        OpenVinoEngine(device, 1).load(relu(tmp_path, 2), model_config())
    assert raised.value.reason == f"device {device} is not available: {KNOWN}"


def test_no_device_of_several(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as raised:
        OpenVinoEngine("MULTI:MYRIAD,HDDL", 1).load(relu(tmp_path, 2), model_config())
    assert raised.value.reason == f"devices MYRIAD, HDDL are not available: {KNOWN}"


@pytest.mark.skipif("GPU" in str(ov.Core().available_devices), reason="there is a GPU")
def test_device_without_its_driver_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as raised:
        OpenVinoEngine("GPU", 1).load(relu(tmp_path, 2), model_config())
    assert raised.value.reason.startswith(f"device GPU is not available: {KNOWN} (")
    assert "/" not in raised.value.reason


@pytest.mark.parametrize("device", ["MULTI:MYRIAD,CPU", "HETERO:MYRIAD,CPU", "AUTO:MYRIAD,CPU"])
def test_absent_devices_are_left_out(load: Load, bench: Bench, tmp_path: Path, device: str) -> None:
    model = load(relu(tmp_path, 2), engine=OpenVinoEngine(device, 1))
    assert model.notes == (f"MYRIAD of {device} is not available, so it is served on CPU",)
    (output,) = bench.infer(model, [np.array([-1, 2], np.float32)])
    np.testing.assert_array_equal(output, [0, 2])


def test_emulated_device(load: Load, bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load(relu(tmp_path, 2), engine=OpenVinoEngine("MYRIAD", 1, emulate_on="CPU"))
    assert model.notes == ("MYRIAD is emulated on CPU",)
    assert caplog.messages == ["MYRIAD is emulated on CPU"]
    bench.infer(model, [np.array([-1, 2], np.float32)])


# ---- OpenVINO's cache of compiled models


def cached(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.name != "lock" and path.is_file())


def test_cache_is_filled_and_used(load: Load, bench: Bench, tmp_path: Path) -> None:
    matmul(tmp_path / "1", 1, 4)
    for _ in range(2):
        model = load(tmp_path / "1", engine=OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "cache"))
        assert model.signature.inputs == (TensorSpec("x", "float32", (1, 4)),)
        assert model.signature.outputs == (TensorSpec("y", "float32", (1, 2)),)
        (output,) = bench.infer(model, [np.ones((1, 4), np.float32)])
        np.testing.assert_array_equal(output, [[4, 4]])
        assert len(cached(tmp_path)) == 1
    assert isinstance(model, OpenVinoModel)
    assert model._compiled is not None
    assert model._compiled.get_property("LOADED_FROM_CACHE")


def test_other_weights_are_another_model(load: Load, bench: Bench, tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        x = parameter("x", "float32", (1, 4))
        weights = np.full((4, 2), number, np.float32)
        save(tmp_path / "1", [named(op.matmul(x, weights, False, False), "y")], [x])
        model = load(tmp_path / "1", engine=OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "cache"))
        (output,) = bench.infer(model, [np.ones((1, 4), np.float32)])
        np.testing.assert_array_equal(output, np.full((1, 2), 4 * number))


@pytest.mark.parametrize("content", [b"", b"garbage", b"half"])
def test_cache_that_is_damaged(load: Load, bench: Bench, tmp_path: Path, content: bytes) -> None:
    load(matmul(tmp_path / "1", 1, 4), engine=OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "cache"))
    (file,) = cached(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    model = load(tmp_path / "1", engine=OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "cache"))
    (output,) = bench.infer(model, [np.ones((1, 4), np.float32)])
    np.testing.assert_array_equal(output, [[4, 4]])


def test_cache_that_cannot_be_written_is_done_without(load: Load, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    relu(tmp_path / "1", 2)
    load(tmp_path / "1", engine=OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "file" / "cache"))


def test_shapes_that_requests_bring_are_not_kept_on_disk(tmp_path: Path) -> None:
    engine = OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "cache")
    source = engine.load(matmul(tmp_path / "1", 1, 4), model_config(batch_size="auto"))
    assert isinstance(source, OpenVinoVariants)
    for rows in (2, 3):
        source.compile(((rows, 4),)).close()
    assert len(cached(tmp_path)) == 1


def test_cache_is_used_by_one_worker_at_a_time(tmp_path: Path) -> None:
    """A process that holds the lock is waited for; one that has ended is not."""
    script = (
        "import sys; from pathlib import Path; from workers.compile_cache import CompileCache\n"
        "with CompileCache(Path(sys.argv[1]), 'CPU', '1').properties() as properties:\n"
        "    print(len(properties), flush=True); sys.stdin.read()"
    )
    impatient = CompileCache(tmp_path, "CPU", "1", patience_s=0.1)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        with impatient.properties() as properties:
            assert properties == {}
        with CompileCache(tmp_path, "GPU", "1").properties() as properties:
            assert properties, "another device has a part of its own"
        holder.kill()
    with impatient.properties() as properties:
        assert properties == {"CACHE_DIR": str(tmp_path / "CPU-1")}


def test_the_configuration_is_a_record_of_the_server(engine: OpenVinoEngine, tmp_path: Path) -> None:
    model = engine.load(relu(tmp_path, 2), ModelConfig("m", "", nireq=3))
    assert isinstance(model, OpenVinoModel)
    assert len(model._slots) == 3
    model.close()
