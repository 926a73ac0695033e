"""Connections that carry out short Predicts themselves: each exchange is held against that of the application without
the quick way.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.unit.frontends.rest.connection_site import (
    BODY,
    LIMIT,
    Site,
    close,
    exchange,
    linked,
    request,
    working,
)
from tests.unit.frontends.scripted_broker import Stage, on_stage

pytestmark = pytest.mark.usefixtures("patched")


@pytest.mark.parametrize(
    ("text", "quick"),
    [
        (request(), True),
        (request(b'{"inputs": [[1, 2, 3]]}'), True),
        (request(b' {"inputs"\n:[[0.1,2e-3,\t3]]} '), True),
        (request(b'{"instances": [[1e39, -1e39, 5]]}'), True),
        (request(BODY, 5), True),
        (request(b'{"inputs": [[1, 2, 3]]}', 5), True),
        (request(BODY, 6), True),
        (request(BODY, 8), True),
        (request(BODY, 1, b"Accept-Encoding: gzip", b"Content-Type: application/json"), True),
        (request(start=b"POST http://proxy/v1/models/m:predict?x=1 HTTP/1.1"), True),
        (request(start=b"POST http://proxy/v1/models/m/versions/1:predict HTTP/1.1"), True),
        (request(start=b"POST /v1/models/m/versions/1:predict?x=1 HTTP/1.1"), True),
        (request(BODY, 2), False),
        (request(BODY, 2, b"Accept-Encoding: gzip"), False),
        (request(BODY, 3), False),
        (request(BODY, 3, b"Accept-Encoding: gzip"), False),
        (request(b'{"inputs": [[1, 2, 3]]}', 4), True),
        (request(BODY, 4), False),
        (request(BODY, 7), False),
        (request(BODY, 99), False),
        (request(b'{"instances": [[1.5, 2, "a"]]}'), False),
        (request(b'{"instances": [[1.5, 2, NaN]]}'), False),
        (request(b'{"instances": [[1.5, 2]]}'), False),
        (request(b'{"instances": [[1.5, 2, 3], [1]]}'), False),
        (request(b'{"instances": [[[[1.5, 2, 3]]]]}'), False),
        (request(b'{"instances": []}'), False),
        (request(b'{"instances": [[1, 2, 3]'), False),
        (request(b'{"instances": [[1, 2, 3]], "signature_name": "other"}'), False),
        (request(BODY, 1, b"Expect: 200-ok"), False),
        (request(BODY, 1, b"Content-Encoding: identity"), False),
        (request(BODY, 1, b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https"), True),
        (request(BODY, 1, b"X-Forwarded-Ssl: on", b"X-Forwarded-Proto: https"), False),
        (request(BODY, 1, b"X_Y: 1"), False),
        (request(BODY + b" " * 4096), False),
        (request(BODY + b" " * LIMIT), False),
        (request(BODY, start=b"PUT /v1/models/m/versions/1:predict HTTP/1.1"), False),
        (request(BODY, start=b"POST /v1/models/m/versions/1:classify HTTP/1.1"), False),
        (request(BODY, start=b"POST /v1/models/m/versions/x:predict HTTP/1.1"), False),
        (request(BODY, start=b"GET /v1/models/m/versions/1 HTTP/1.1"), False),
        (b"GET /v1/models/m/versions/1 HTTP/1.1\r\nHost: h\r\n\r\n", False),
    ],
)
def test_answers_are_those_of_the_application(tmp_path: Path, text: bytes, quick: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await linked(stage)
        async with working(stage):
            plain, asked = await exchange(stage, False, [text] * 5)
            assert asked == 5
            assert len(set(plain)) == 1
            found, asked = await exchange(stage, True, [text] * 5)
        assert found == plain
        assert asked == (2 if quick else 5), "the head is known when it comes a third time"
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


def test_the_last_request_of_a_connection(tmp_path: Path) -> None:
    texts = [
        close(request()),
        request().replace(b"1.1\r\n", b"1.0\r\n"),
        close(request(b"nonsense")),
        request().replace(b"Content-Length: 31", b"Content-Length: +31"),
        request(BODY, 1, b"Transfer-Encoding: chunked"),
    ]

    async def scenario(stage: Stage) -> None:
        await linked(stage)
        for text in texts:
            answers: dict[bool, list[bytes]] = {False: [], True: []}
            for quick, found in answers.items():
                site = Site(stage, quick)
                async with working(stage), site.serving() as connect:
                    for _ in range(4):
                        client = await connect()
                        found += [await client.ask(request()), await client.ask(text)]
                        assert await client.ends()
            assert answers[False] == answers[True]

    on_stage(scenario)(tmp_path)


def test_at_debug_each_request_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await linked(stage)
        async with working(stage):
            await exchange(stage, True, [request()] * 5)

    with caplog.at_level(logging.DEBUG, "frontends"):
        on_stage(scenario)(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len([line for line in lines if line.startswith("model m version 1: deserialization")]) == 5


def test_a_server_of_cross_origin_pages_has_no_quick_way(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await linked(stage)
        async with working(stage):
            answers, asked = await exchange(stage, True, [request()] * 5, rest_cors_origins=("*",))
        assert asked == 5
        assert b"Access-Control-Allow-Origin" not in answers[4], "there was no Origin"

    on_stage(scenario)(tmp_path)
