"""The REST API of a whole server: packed bodies, images, classes and values, and bad input with a bound on its cost."""

import base64
import contextlib
import gzip
import http.client
import json
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontends.rest.body import MEMORY_FACTOR
from tests.support import models
from tests.support.clients import RestClient
from tests.support.pictures import bomb_png, claiming_png, plain
from tests.support.server import HOST, NAME, Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

MB = 1 << 20
LIMIT_MB = 32
PATH = f"/v1/models/{NAME}"
IMAGES = f"{PATH}/versions/2"
GOOD = {"instances": [[1.0, 2.0, 3.0]]}
ORIGIN = "https://example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Version 1 echoes rows of three, version 2 images, version 3 cannot be loaded. The same processes to the end."""
    directory = tmp_path_factory.mktemp("rest")
    path = models.echo(directory / "models", shape=(-1, 3))
    models.echo(path, 2, shape=(-1, 3, 2, 2))
    models.corrupt(path, 3)
    everything = '{"all": {}}'
    with Server(
        directory,
        path,
        max_message_mb=LIMIT_MB,
        model_version_policy=everything,
        rest_cors_origins=ORIGIN,
    ) as started:
        family = {(one.pid, one.kind) for one in started.processes()}
        yield started
        assert {(one.pid, one.kind) for one in started.processes()} == family
        assert "Traceback" not in started.log()


@pytest.fixture
def web(server: Server) -> Iterator[RestClient]:
    """After each test it must still serve, and have nothing in hand."""
    with RestClient(server.rest_port) as opened:
        yield opened
        assert opened.predict(GOOD, 1) == (200, {"predictions": GOOD["instances"]})
    server.wait_idle()


def ask(
    server: Server,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(HOST, server.rest_port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response, response.read()


def refused(
    server: Server, body: bytes, headers: Mapping[str, str] | None = None, path: str = ""
) -> tuple[int, str]:
    response, text = ask(server, "POST", path or f"{PATH}/versions/1:predict", body, headers)
    document = json.loads(text)
    assert list(document) == ["error"]
    return response.status, document["error"]


def peak_bytes(pid: int) -> int:
    """Most memory that a process has had, since it was last set to what it has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def forget_peak(pid: int) -> int:
    """Set the peak to what the process has now; how much that is."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)


def test_a_failing_version_says_why(server: Server, web: RestClient) -> None:
    def failed() -> Any:
        status, document = web.send("GET", f"{PATH}/versions/3")
        found = document["model_version_status"][0] if status == 200 else {"status": {"error_message": ""}}
        return found if found["status"]["error_message"] else None

    found = until(failed, "version 3 fails")
    assert found["state"] == "LOADING"
    assert found["status"]["error_code"] == "UNKNOWN"
    assert found["status"]["error_message"].startswith("Error occurred while loading version")
    listed = web.send("GET", PATH)[1]["model_version_status"]
    assert [one["version"] for one in listed] == ["1", "2", "3"]


def test_classes_and_values(web: RestClient) -> None:
    body = json.dumps({"examples": [{"x": [1, 2, 3]}, {"x": [4, 5, 6.5]}]}).encode()
    status, document = web.send("POST", f"{PATH}/versions/1:classify", body)
    assert (status, document["results"][1]) == (200, [["0", 4.0], ["1", 5.0], ["2", 6.5]])
    status, document = web.send("POST", f"{PATH}/versions/1:regress", body)
    assert (status, "cannot be read as one value" in document["error"]) == (400, True)


def test_packed_both_ways(server: Server, web: RestClient) -> None:
    rows = np.arange(30_000).reshape(-1, 3)
    body = gzip.compress(json.dumps({"instances": rows.tolist()}).encode())
    headers = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    response, text = ask(server, "POST", f"{PATH}/versions/1:predict", body, headers)
    assert (response.status, response.getheader("Content-Encoding")) == (200, "gzip")
    assert json.loads(gzip.decompress(text)) == {"predictions": rows.tolist()}


def test_head_and_options(server: Server, web: RestClient) -> None:
    for path in (PATH, f"{PATH}/versions/1/metadata", "/v1/config", "/openapi.json", "/docs"):
        head, nothing = ask(server, "HEAD", path)
        got, text = ask(server, "GET", path)
        assert (head.status, nothing) == (got.status, b"") == (200, b"")
        assert head.getheader("Content-Length") == str(len(text))
    options, _ = ask(server, "OPTIONS", f"{PATH}:predict")
    assert (options.status, options.getheader("Allow")) == (200, "POST")


def test_pages_of_an_origin_that_is_named(server: Server, web: RestClient) -> None:
    for origin, allowed in ((ORIGIN, ORIGIN), ("https://other.example", None)):
        response, _ = ask(server, "GET", PATH, None, {"Origin": origin})
        assert response.getheader("Access-Control-Allow-Origin") == allowed


def test_images(server: Server, web: RestClient) -> None:
    coded = {"b64": base64.b64encode(plain(9, 5, (1, 2, 3))).decode()}
    status, document = web.predict({"instances": [coded, coded]}, 2)
    assert status == 200
    assert document["predictions"] == [[[[float(value)] * 2] * 2 for value in (3, 2, 1)]] * 2
    tiny = {"b64": base64.b64encode(plain(1, 1, (7, 8, 9))).decode()}
    assert web.predict({"inputs": tiny}, 2)[1]["outputs"][0][0][0][0] == 9.0


# ---- bombs, with a bound on the memory of the process


@pytest.mark.parametrize(
    ("bomb", "bound_mb"),
    [
        (lambda: gzip.compress(bytes(1024 * MB), 9), 2 * LIMIT_MB + 16),
        (lambda: gzip.compress(b" " * (LIMIT_MB * MB - 1) + b"{"), 2 * LIMIT_MB + 16),
        (lambda: gzip.compress(gzip.compress(bytes(1024 * MB), 9)), 16),
    ],
    ids=["1 GB of zeros", "just as long as it may be", "packed twice"],
)
def test_a_gzip_bomb_is_bounded(server: Server, web: RestClient, bomb: Any, bound_mb: int) -> None:
    body = bomb()
    pid = server.pid("rest")
    before = forget_peak(pid)
    status, text = refused(server, body, {"Content-Encoding": "gzip"})
    assert (status, bool(text)) in ((413, True), (400, True))
    assert peak_bytes(pid) - before < bound_mb * MB


@pytest.mark.parametrize(
    ("picture", "status", "bound_mb"),
    [
        (lambda: claiming_png(20_000, 20_000), 400, 16),
        (lambda: bomb_png(20_000, 20_000), 400, 16),
        (lambda: claiming_png(7000, 7000), 400, 512),
        (lambda: bomb_png(7000, 7000), 200, 512),
    ],
    ids=["claims 20000 x 20000", "20000 x 20000", "claims 7000 x 7000", "7000 x 7000"],
)
def test_an_image_bomb_is_bounded(
    server: Server, web: RestClient, picture: Any, status: int, bound_mb: int
) -> None:
    body = json.dumps({"instances": [{"b64": base64.b64encode(picture()).decode()}]}).encode()
    pid = server.pid("rest")
    before = forget_peak(pid)
    response, text = ask(server, "POST", f"{IMAGES}:predict", body)
    assert response.status == status, text[:500]
    assert peak_bytes(pid) - before < bound_mb * MB


def test_json_of_many_brackets_is_bounded(server: Server, web: RestClient) -> None:
    pid = server.pid("rest")
    before = forget_peak(pid)
    for start in (b"", b'{"inputs": ', b'{"examples": ', b'{"inputs": [NaN, '):
        for bracket in (b"[", b'{"a":', b"[1,"):
            body = start + bracket * (8 * MB // len(bracket))
            for verb in ("predict", "classify", "regress"):
                status, text = refused(server, body, path=f"{PATH}/versions/1:{verb}")
                assert (status, text.startswith("Invalid JSON")) == (400, True)
    # Two threads read long bodies, and what each has needed stays with it for a while.
    assert peak_bytes(pid) - before < 2 * MEMORY_FACTOR * 8 * MB


# ---- what is no request


def mutations(count: int) -> Iterator[bytes]:
    """Sound bodies, cut, doubled and spoiled."""
    chance = random.Random(7)
    sound = [
        json.dumps(body).encode()
        for body in (
            GOOD,
            {"inputs": {"x": [[1, 2, 3]]}},
            {"instances": [{"x": [1, 2, 3]}], "signature_name": "serving_default"},
            {"examples": [{"x": [1, 2, 3]}], "context": {}},
            {"instances": [{"b64": "AAAA"}]},
        )
    ]
    for _ in range(count):
        body = bytearray(chance.choice(sound))
        match chance.randrange(4):
            case 0:
                del body[chance.randrange(len(body)) :]
            case 1:
                body[chance.randrange(len(body))] = chance.randrange(256)
            case 2:
                body = bytearray(os.urandom(chance.randrange(200)))
            case _:
                place = chance.randrange(len(body))
                body[place:place] = chance.choice(
                    [b"NaN", b"[", b"]", b'"', b"null", b"1e999", b"-", b"\xff", b"{}"]
                )
        yield bytes(body)


def test_spoiled_bodies(web: RestClient) -> None:
    for body in mutations(400):
        for verb in ("predict", "classify", "regress"):
            status, document = web.send("POST", f"{PATH}/versions/1:{verb}", body)
            assert status in (200, 400), body
            assert status == 200 or list(document) == ["error"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"instances": [[1, 2, 3]], "signature_name": "other"}, "'other' not found"),
        ({"inputs": {"y": [[1, 2, 3]]}}, "input tensor alias not found in signature: ['y']"),
        ({"inputs": {"x": [[1, 2, 3]], "y": 1}}, "input tensor alias not found in signature: ['y']"),
        (
            {"instances": [[1, 2]]},
            "The input data is incorrect. Obtained shape [1, 2], required shape [-1, 3]",
        ),
        ({"instances": 1}, "Invalid inputs in request body"),
        ({"instances": ["a"]}, "Invalid inputs in request body"),
        ({"instances": [[1, 2, 10**400]]}, None),
        ({"instances": [[True, 2, 3]]}, "mixes booleans and numbers"),
        ({"instances": [[[[[[1]]]]]]}, "The input data is incorrect"),
    ],
)
def test_wrong_bodies(web: RestClient, body: dict[str, Any], text: str | None) -> None:
    status, document = web.predict(body, 1)
    assert status == (200 if text is None else 400)
    assert text is None or text in document["error"]


def test_unknown_members_are_ignored_and_names_that_come_twice_are_not(
    server: Server, web: RestClient
) -> None:
    assert web.predict({**GOOD, "unknown": {"deep": [[]]}}, 1)[0] == 200
    for body in (
        b'{"instances": [[1, 2, 3]], "instances": [[1, 2, 3]]}',
        b'{"inputs": {"x": [[1, 2, 3]], "x": [[1, 2, 3]]}}',
    ):
        assert refused(server, body) == (400, "Invalid JSON: an object names a member twice")
