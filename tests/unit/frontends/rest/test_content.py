"""Bodies through the application: packed ones, long ones, those of other origins' pages; classes and values; images."""

import asyncio
import base64
import gzip
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from falcon import testing

from common.config import ServerConfig
from common.tensors import Heads, Signature, TensorSpec
from frontends.rest.app import RestApp, create_app
from frontends.rest.offload import LONG_BYTES
from tests.support.pictures import claiming_png, plain
from tests.unit.frontends.fake_dataplane import FakeDataplane, FakeVersion, add_one

LIMIT = 8 << 20
ORIGIN = "https://example.org:8443"
PREDICT = "/v1/models/one:predict"
ROW = b'{"instances": [[1, 2, 3]]}'


def total(rank: int = 2) -> FakeVersion:
    """A short answer to a long request."""
    signature = Signature((TensorSpec("x", "float64", (-1,) * rank),), (TensorSpec("y", "float64", ()),))
    return FakeVersion(signature, lambda inputs: {"y": inputs["x"].sum()})


def count_up() -> FakeVersion:
    """A long answer to a short request."""
    signature = Signature((TensorSpec("x", "int32", (1,)),), (TensorSpec("y", "int32", (-1, -1)),))
    return FakeVersion(
        signature, lambda inputs: {"y": np.arange(inputs["x"][0], dtype=np.int32).reshape(-1, 100)}
    )


def scores(heads: Heads, outputs: int = 1) -> FakeVersion:
    """Two scores an example, the second one the greater; further outputs are the same."""
    names = [f"out{number}" for number in range(outputs)]
    signature = Signature(
        (TensorSpec("x", "float32", (-1, 2)),),
        tuple(TensorSpec(name, "float32", (-1, 2)) for name in names),
        heads,
    )

    def compute(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return dict.fromkeys(names, np.sort(inputs["x"], axis=1))

    return FakeVersion(signature, compute)


def mean(shape: tuple[int, ...] = (-1, 3)) -> FakeVersion:
    signature = Signature((TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", (-1, 1)),))
    return FakeVersion(signature, lambda inputs: {"y": inputs["x"].mean(axis=1, keepdims=True)})


def image() -> FakeVersion:
    """The first element of each channel."""
    signature = Signature(
        (TensorSpec("x", "float32", (-1, 3, 2, 2)),), (TensorSpec("y", "float32", (-1, 3)),)
    )
    return FakeVersion(signature, lambda inputs: {"y": inputs["x"][:, :, 0, 0]})


@pytest.fixture
def dataplane() -> FakeDataplane:
    return FakeDataplane(
        {
            "one": {1: add_one(shape=(-1, 3))},
            "total": {1: total()},
            "count": {1: count_up()},
            "scores": {1: scores(Heads())},
            "named": {1: scores(Heads(classes=("cat", "dog"), top_k=1))},
            "two": {1: scores(Heads(), outputs=2)},
            "chosen": {1: scores(Heads(classification="out1", regression="out1"), outputs=2)},
            "mean": {1: mean()},
            "image": {1: image()},
        }
    )


def application(dataplane: FakeDataplane, **options: Any) -> RestApp:
    return create_app(dataplane, ServerConfig(models=(), run_dir="", message_bytes=LIMIT, **options))


@pytest.fixture
def client(dataplane: FakeDataplane) -> testing.TestClient:
    return testing.TestClient(application(dataplane))


def post(client: testing.TestClient, path: str, body: bytes, **headers: str) -> testing.Result:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.simulate_post(path, body=body, headers=named)


def error_of(result: testing.Result, status: int) -> str:
    assert result.status_code == status, result.text
    assert list(result.json) == ["error"]
    return str(result.json["error"])


# ---- packed requests


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", " gzip "])
def test_packed_requests(client: testing.TestClient, coding: str) -> None:
    result = post(client, PREDICT, gzip.compress(ROW), Content_Encoding=coding)
    assert result.json == {"predictions": [[2.0, 3.0, 4.0]]}
    assert post(client, PREDICT, ROW, Content_Encoding="identity").status_code == 200


def test_a_long_packed_request(client: testing.TestClient) -> None:
    values = np.arange(300_000).reshape(-1, 100)
    body = gzip.compress(orjson.dumps({"inputs": values}, option=orjson.OPT_SERIALIZE_NUMPY))
    assert post(client, "/v1/models/total:predict", body, Content_Encoding="gzip").json == {
        "outputs": float(values.sum())
    }


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "\u00ff", "x" * 200])
def test_other_codings(client: testing.TestClient, coding: str) -> None:
    result = post(client, PREDICT, ROW, Content_Encoding=coding)
    assert "gzip and identity" in error_of(result, 415)
    assert result.headers["accept-encoding"] == "gzip, identity"


@pytest.mark.parametrize(
    "body",
    [b"", ROW, gzip.compress(ROW, mtime=0)[:-3], gzip.compress(ROW, mtime=0) + b"x", b"\x1f\x8b"],
)
def test_what_is_no_gzip(client: testing.TestClient, body: bytes) -> None:
    assert error_of(post(client, PREDICT, body, Content_Encoding="gzip"), 400)


@pytest.mark.parametrize("length", [LIMIT + 1, 64 << 20])
def test_a_bomb_is_too_large(client: testing.TestClient, length: int) -> None:
    bomb = gzip.compress(bytes(length))
    assert str(LIMIT) in error_of(post(client, PREDICT, bomb, Content_Encoding="gzip"), 413)
    assert error_of(post(client, PREDICT, gzip.compress(bytes(LIMIT)), Content_Encoding="gzip"), 400)


# ---- packed answers


def test_long_answers_are_packed_for_who_accepts_it(client: testing.TestClient) -> None:
    for count in (400, 100_000):
        body = json.dumps({"inputs": [count]}).encode()
        plain_answer = post(client, "/v1/models/count:predict", body)
        packed = post(client, "/v1/models/count:predict", body, Accept_Encoding="gzip, deflate")
        assert "content-encoding" not in plain_answer.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.content) == plain_answer.content
        assert plain_answer.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
        assert np.array(plain_answer.json["outputs"]).tolist() == np.arange(count).reshape(-1, 100).tolist()
        refused = post(client, "/v1/models/count:predict", body, Accept_Encoding="gzip;q=0")
        assert refused.content == plain_answer.content


def test_short_answers_are_not(client: testing.TestClient) -> None:
    result = post(client, PREDICT, ROW, Accept_Encoding="gzip")
    assert "content-encoding" not in result.headers
    assert "vary" not in result.headers
    assert result.json == {"predictions": [[2.0, 3.0, 4.0]]}


def test_head_of_a_packed_answer(client: testing.TestClient) -> None:
    for path in ("/openapi.json", "/docs", "/v1/config"):
        headers = {"Accept-Encoding": "gzip"}
        got, head = client.simulate_get(path, headers=headers), client.simulate_head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-encoding", "content-length", "content-type", "vary"):
            assert got.headers.get(name) == head.headers.get(name)


# ---- long bodies


async def _ask(app: RestApp, model: str, body: bytes, finished: list[str]) -> dict[str, Any]:
    scope = testing.create_scope(path=f"/v1/models/{model}:predict", method="POST")
    scope["headers"] = [(b"content-length", str(len(body)).encode())]
    scope["raw_path"] = f"/v1/models/{model}:predict".encode()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    finished.append(model)
    document: dict[str, Any] = json.loads(sent[1]["body"])
    return document


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("total", orjson.dumps({"inputs": np.ones((300, 1000))}, option=orjson.OPT_SERIALIZE_NUMPY)),
        ("total", b'{"inputs": [[' + b"NaN, 1.5, " * 50_000 + b"1]]}"),
        ("count", b'{"inputs": [1000000]}'),
    ],
    ids=["read", "read by the standard library", "written"],
)
def test_others_are_served_while_a_long_body_is_read_or_written(
    dataplane: FakeDataplane, model: str, body: bytes
) -> None:
    """What was asked for first, and takes long, is finished last: it has let the others in."""

    async def run() -> None:
        finished: list[str] = []
        app = application(dataplane)
        await asyncio.gather(
            _ask(app, model, body, finished), *(_ask(app, "one", ROW, finished) for _ in range(3))
        )
        assert finished == ["one", "one", "one", model]
        app.close()

    assert len(body) > LONG_BYTES or model == "count"
    asyncio.run(run())


def test_a_long_body_is_read_like_a_short_one(client: testing.TestClient, dataplane: FakeDataplane) -> None:
    blank = b" " * LONG_BYTES
    for body, status in (
        (ROW, 200),
        (b'{"instances": [[1, 2], [3]]}', 400),
        (b'{"instances": [[1, 2]]}', 400),
        (b'{"what": 1}', 400),
        (b'{"instances": ', 400),
        (b"\xff\xfe", 400),
    ):
        short, long = post(client, PREDICT, body), post(client, PREDICT, body + blank)
        assert (short.status_code, long.status_code) == (status, status)
        assert short.json == long.json or "Invalid JSON" in short.text + long.text
    assert error_of(post(client, "/v1/models/none:predict", ROW + blank), 404)
    assert [prediction.released for prediction in dataplane.predictions] == [1, 1]


def test_a_version_that_changes_while_a_body_is_read(dataplane: FakeDataplane) -> None:
    """What was read for the version that left is read again for the one that came."""

    class Changing(FakeDataplane):
        def choose(self, selector: Any) -> Any:
            served = super().choose(selector)
            self.models = {"m": {2: total(1)}}
            return served

    changing = Changing({"m": {1: total(2)}})
    client = testing.TestClient(application(changing))
    body = b'{"inputs": [1, 2, 3]}' + b" " * LONG_BYTES
    assert post(client, "/v1/models/m:predict", body).json == {"outputs": 6.0}


# ---- classes and values


def test_classify(client: testing.TestClient) -> None:
    body = b'{"examples": [{"x": [2, 1]}, {"anything": [3, 4]}]}'
    assert "not inputs of the model" in error_of(post(client, "/v1/models/scores:classify", body), 400)
    body = b'{"examples": [{"x": [2, 1]}, {"x": [3, 4]}]}'
    assert post(client, "/v1/models/scores:classify", body).json == {
        "results": [[["0", 1.0], ["1", 2.0]], [["0", 3.0], ["1", 4.0]]]
    }
    assert post(client, "/v1/models/named/versions/1:classify", body).json == {
        "results": [[["dog", 2.0]], [["dog", 4.0]]]
    }
    assert post(client, "/v1/models/chosen:classify", body).status_code == 200
    assert "does not say which one" in error_of(post(client, "/v1/models/two:classify", body), 400)


def test_regress(client: testing.TestClient, dataplane: FakeDataplane) -> None:
    body = b'{"context": {"x": [9, 9, 9]}, "examples": [{"x": [1, 2, 6]}, {}], "signature_name": "serving_default"}'
    assert post(client, "/v1/models/mean:regress", body).json == {"results": [3.0, 9.0]}
    assert post(client, "/v1/models/mean:regress", body + b" " * LONG_BYTES).json == {"results": [3.0, 9.0]}
    body = b'{"examples": [{"x": [1, 2]}]}'
    assert "cannot be read as one value" in error_of(post(client, "/v1/models/scores:regress", body), 400)
    assert "1 values" not in error_of(post(client, "/v1/models/mean:regress", body), 400)
    assert all(prediction.released == 1 for prediction in dataplane.predictions)


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"instances": [[1, 2]]}',
        b'{"examples": []}',
        b'{"examples": [{}]}',
        b'{"examples": [{"x": []}]}',
        b'{"examples": [{"x": [1, 2, 3, 4]}]}',
        b'{"examples": [{"x": [1, "a"]}]}',
        b'{"examples": [{"x": "a"}]}',
        b'{"examples": [{"x": [1, 2]}, {"x": [1]}]}',
        b'{"examples": [{"x": [1, 2], "z": 1}]}',
        b'{"examples": [{"x": [100000000000000000000, 1]}]}',
        b'{"examples": [{"x": [1, 2]}], "signature_name": "other"}',
        b'{"examples": [{"x": [1, 2]}], "context": {"x": {}}}',
    ],
)
def test_wrong_examples(client: testing.TestClient, verb: str, body: bytes) -> None:
    result = post(client, f"/v1/models/scores:{verb}", body)
    assert error_of(result, 400)
    assert post(client, f"/v1/models/none:{verb}", body).status_code == 404
    assert client.simulate_get(f"/v1/models/scores:{verb}").status_code == 405


# ---- images


def coded(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def test_images(client: testing.TestClient) -> None:
    red, blue = plain(2, 2, (200, 0, 10)), plain(30, 20, (0, 100, 250), "PNG")
    answer = [[10.0, 0.0, 200.0], [250.0, 100.0, 0.0]]  # blue, green, red
    for body, member in (
        ({"instances": [coded(red), coded(blue)]}, "predictions"),
        ({"instances": [{"x": coded(red)}, {"x": coded(blue)}]}, "predictions"),
        ({"inputs": [coded(red), coded(blue)]}, "outputs"),
        ({"inputs": {"x": [coded(red), coded(blue)]}}, "outputs"),
    ):
        result = post(client, "/v1/models/image:predict", json.dumps(body).encode())
        assert result.json == {member: answer}
    one = post(client, "/v1/models/image:predict", json.dumps({"inputs": coded(red)}).encode())
    assert one.json == {"outputs": answer[:1]}
    large = coded(plain(700, 700, (1, 2, 3)) + b" " * LONG_BYTES)
    assert post(client, "/v1/models/image:predict", json.dumps({"instances": [large]}).encode()).json == {
        "predictions": [[3.0, 2.0, 1.0]]
    }


@pytest.mark.parametrize(
    "image_bytes",
    [b"", b"no image", plain(5, 5)[:-30], claiming_png(20_000, 20_000), claiming_png(1 << 30, 1 << 30)],
    ids=["empty", "text", "truncated", "20000 x 20000", "2^30 x 2^30"],
)
def test_what_is_no_image(client: testing.TestClient, image_bytes: bytes) -> None:
    body = json.dumps({"instances": [coded(image_bytes)]}).encode()
    assert "'x'" in error_of(post(client, "/v1/models/image:predict", body), 400)


def test_images_for_a_model_that_takes_none(client: testing.TestClient) -> None:
    body = json.dumps({"instances": [coded(plain(2, 2))]}).encode()
    assert "base64 stands for an image" in error_of(post(client, PREDICT, body), 400)


# ---- pages of other origins


def test_without_origins_nothing_is_said(client: testing.TestClient) -> None:
    for result in (
        client.simulate_get("/v1/models/one", headers={"Origin": ORIGIN}),
        client.simulate_options(PREDICT, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}),
    ):
        assert not [name for name in result.headers if name.startswith("access-control") or name == "vary"]


def test_a_preflight(dataplane: FakeDataplane) -> None:
    client = testing.TestClient(application(dataplane, rest_cors_origins=(ORIGIN, "http://b")))
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    allowed = client.simulate_options(PREDICT, headers={"Origin": ORIGIN, **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in re.split(", *", allowed.headers["access-control-allow-methods"])
    assert allowed.headers["access-control-allow-headers"] == "content-type"
    assert int(allowed.headers["access-control-max-age"]) > 0
    assert "Origin" in re.split(", *", allowed.headers["vary"])
    other = client.simulate_options(PREDICT, headers={"Origin": "https://evil.example", **asked})
    assert not [name for name in other.headers if name.startswith("access-control")]
    assert "Origin" in other.headers["vary"]


@pytest.mark.parametrize(
    ("origins", "origin", "answer"),
    [
        ((ORIGIN,), ORIGIN, ORIGIN),
        ((ORIGIN,), "https://example.org", None),
        ((ORIGIN,), "null", None),
        ((ORIGIN,), None, None),
        (("*",), "https://any.example", "*"),
        (("*",), None, None),
    ],
)
def test_answers_to_other_origins(
    dataplane: FakeDataplane, origins: tuple[str, ...], origin: str | None, answer: str | None
) -> None:
    client = testing.TestClient(application(dataplane, rest_cors_origins=origins))
    headers = {"Origin": origin} if origin else {}
    for result in (
        post(client, PREDICT, ROW, **headers),
        post(client, PREDICT, b"", **headers),
        client.simulate_get("/nowhere", headers=headers),
        client.simulate_get("/openapi.json", headers={**headers, "Accept-Encoding": "gzip"}),
    ):
        assert result.headers.get("access-control-allow-origin") == answer
        assert "access-control-allow-credentials" not in result.headers
        assert ("Origin" in result.headers.get("vary", "")) == (origins != ("*",))
