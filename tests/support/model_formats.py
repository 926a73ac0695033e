"""y = relu(x) in every format that OpenVINO reads beside its own, written byte by byte.

No framework is needed for it: protobuf's wire format takes a few lines, and so do flatbuffers. Field numbers are those
of onnx.proto, graph.proto and saved_model.proto (TensorFlow), framework.proto (PaddlePaddle), and TensorFlow Lite's
schema.fbs. -1 in a shape is a dimension that the model leaves open.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

Shape = Sequence[int]
Field = tuple[int, "int | str | bytes"]


def message(*fields: Field) -> bytes:
    """A protobuf message: numbers as varints, texts and messages by length."""
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


# ---- ONNX


def onnx(directory: Path, shape: Shape) -> Path:
    """ONNX; open dimensions have names there."""
    float32 = 1
    dims = [message((2, f"d{i}") if n < 0 else (1, n)) for i, n in enumerate(shape)]
    tensor = message((1, float32), (2, message(*[(1, dim) for dim in dims])))

    def value(name: str) -> bytes:
        return message((1, name), (2, message((1, tensor))))

    node = message((1, "x"), (2, "y"), (3, "relu"), (4, "Relu"))
    graph = message((1, node), (2, "graph"), (11, value("x")), (12, value("y")))
    model = message((1, 8), (7, graph), (8, message((1, ""), (2, 13))))
    return _write(directory / "model.onnx", model)


# ---- TensorFlow


def _graph(shape: Shape) -> bytes:
    float32 = message((6, 1))
    dims = message((7, message(*[(2, message((1, length))) for length in shape])))

    def attribute(name: str, value: bytes) -> Field:
        return 5, message((1, name), (2, value))

    x = message((1, "x"), (2, "Placeholder"), attribute("dtype", float32), attribute("shape", dims))
    y = message((1, "y"), (2, "Relu"), (3, "x"), attribute("T", float32))
    return message((1, x), (1, y), (4, message((1, 27))))


def tensorflow_frozen(directory: Path, shape: Shape) -> Path:
    """A frozen graph."""
    return _write(directory / "frozen.pb", _graph(shape))


def tensorflow_saved(directory: Path, shape: Shape) -> Path:
    """A SavedModel, with the further files that TensorFlow and Keras put beside it."""

    def tensor(name: str) -> bytes:
        dims = message(*[(2, message((1, length))) for length in shape])
        return message((1, f"{name}:0"), (2, 1), (3, dims))

    def entry(key: str, value: bytes) -> bytes:
        return message((1, key), (2, value))

    signature = message(
        (1, entry("x", tensor("x"))), (2, entry("y", tensor("y"))), (3, "tensorflow/serving/predict")
    )
    information = message((4, "serve"))
    meta_graph = message((1, information), (2, _graph(shape)), (5, entry("serving_default", signature)))
    _write(directory / "saved_model.pb", message((1, 1), (2, meta_graph)))
    _write(directory / "fingerprint.pb", b"\x08\x01")
    _write(directory / "keras_metadata.pb", b"")
    (directory / "variables").mkdir(exist_ok=True)
    return directory


# ---- PaddlePaddle


def paddle(directory: Path, shape: Shape) -> Path:
    """PaddlePaddle, with no parameters."""
    lod_tensor, feed_list, fetch_list, float32 = 7, 9, 10, 5

    def tensor(name: str) -> bytes:
        desc = message((1, float32), *[(2, length) for length in shape])
        return message((1, name), (2, message((1, lod_tensor), (3, message((1, desc))))))

    def special(name: str, kind: int) -> bytes:
        return message((1, name), (2, message((1, kind))), (3, 1))

    def operation(kind: str, source: str, target: str, *attributes: bytes) -> bytes:
        inputs, outputs = message((1, "X"), (2, source)), message((1, "Out"), (2, target))
        return message((1, inputs), (2, outputs), (3, kind), *[(4, one) for one in attributes])

    column = message((1, "col"), (2, 0), (3, 0))
    block = message(
        (1, 0),
        (2, -1),
        (3, special("feed", feed_list)),
        (3, special("fetch", fetch_list)),
        (3, tensor("x")),
        (3, tensor("y")),
        (4, operation("feed", "feed", "x", column)),
        (4, operation("relu", "x", "y")),
        (4, operation("fetch", "y", "fetch", column)),
    )
    _write(directory / "model.pdiparams", b"")
    return _write(directory / "model.pdmodel", message((1, block), (4, message((1, 2_000_000)))))


# ---- TensorFlow Lite


class Table:
    """A flatbuffers table: values by field number; a packed scalar, a text, a vector or another table."""

    def __init__(self, **fields: "bytes | str | Vector | Table") -> None:
        self.fields = {int(name[1:]): value for name, value in fields.items()}


class Vector:
    """A vector of packed scalars, or of tables."""

    def __init__(self, *items: "bytes | Table") -> None:
        self.items = items


class _Buffer:
    """Written parents first, since references point forward."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self) -> None:
        self.data += bytes(-len(self.data) % 4)

    def point(self, place: int, target: int) -> None:
        struct.pack_into("<I", self.data, place, target - place)

    def add(self, value: "str | Vector | Table") -> int:
        """Where it lies."""
        self.align()
        if isinstance(value, Table):
            return self._table(value)
        start = len(self.data)
        if isinstance(value, str):
            self.data += struct.pack("<I", len(value)) + value.encode() + b"\0"
            return start
        self.data += struct.pack("<I", len(value.items))
        places: list[tuple[int, Table]] = []
        for item in value.items:
            if isinstance(item, Table):
                places.append((len(self.data), item))
                self.data += bytes(4)
            else:
                self.data += item
        for place, item in places:
            self.point(place, self.add(item))
        return start

    def _table(self, table: Table) -> int:
        count = max(table.fields, default=-1) + 1
        offsets = {number: 4 + 4 * index for index, number in enumerate(table.fields)}
        vtable = len(self.data)
        sizes = (4 + 2 * count, 4 + 4 * len(table.fields))
        self.data += struct.pack(f"<{2 + count}H", *sizes, *[offsets.get(i, 0) for i in range(count)])
        self.align()
        start = len(self.data)
        self.data += struct.pack("<i", start - vtable) + bytes(4 * len(table.fields))
        for number, value in table.fields.items():
            place = start + offsets[number]
            if isinstance(value, bytes):
                self.data[place : place + len(value)] = value
            else:
                self.point(place, self.add(value))
        return start


def _int(value: int) -> bytes:
    return struct.pack("<i", value)


def tflite(directory: Path, shape: Shape) -> Path:
    """TensorFlow Lite."""
    relu = 19

    def tensor(name: str) -> Table:
        # An open dimension is 1 in `shape` and -1 in `shape_signature`.
        fixed = Vector(*[_int(max(1, length)) for length in shape])
        return Table(f0=fixed, f1=b"\0", f2=_int(0), f3=name, f7=Vector(*map(_int, shape)))

    operator = Table(f0=_int(0), f1=Vector(_int(0)), f2=Vector(_int(1)))
    graph = Table(
        f0=Vector(tensor("x"), tensor("y")), f1=Vector(_int(0)), f2=Vector(_int(1)), f3=Vector(operator)
    )
    codes = Vector(Table(f0=bytes([relu]), f2=_int(1), f3=_int(relu)))
    model = Table(f0=_int(3), f1=codes, f2=Vector(graph), f3="relu", f4=Vector(Table()))
    buffer = _Buffer()
    buffer.data += bytes(4) + b"TFL3"
    buffer.point(0, buffer.add(model))
    return _write(directory / "model.tflite", bytes(buffer.data))


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


FORMATS: dict[str, Callable[[Path, Shape], Path]] = {
    "onnx": onnx,
    "frozen graph": tensorflow_frozen,
    "SavedModel": tensorflow_saved,
    "TensorFlow Lite": tflite,
    "PaddlePaddle": paddle,
}
