"""The page at /docs, in a browser, on a whole server."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import models
from tests.support.browser import Browser, Page, find_browser
from tests.support.server import HOST, NAME, Server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An echo of rows of three."""
    directory = tmp_path_factory.mktemp("docs")
    with Server(directory, models.echo(directory / "models", shape=(-1, 3))) as started:
        yield started


def get(server: Server, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(HOST, server.rest_port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response, text


def test_the_page_and_its_parts(server: Server) -> None:
    for path, kind in (
        ("/docs", "text/html"),
        ("/docs/page.js", "text/javascript"),
        ("/docs/page.css", "text/css"),
        ("/openapi.json", "application/json"),
    ):
        response, text = get(server, path)
        assert response.status == 200
        assert (response.getheader("Content-Type") or "").startswith(kind)
        assert text
    response, text = get(server, "/docs")
    assert "default-src 'none'" in (response.getheader("Content-Security-Policy") or "")
    assert b"http" not in text.replace(b"http-equiv", b"")


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    if find_browser() is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    with Browser() as browser:
        opened = browser.open(f"http://{HOST}:{server.rest_port}/docs")
        opened.wait_for("document.getElementById('operations').getAttribute('aria-busy') === 'false'")
        yield opened


def fill(page: Page, field: str, text: str) -> None:
    page.evaluate(f"document.getElementById({json.dumps(field)}).value = {json.dumps(text)}")


def test_the_operations_are_shown_and_can_be_tried(server: Server, page: Page) -> None:
    document: Any = json.loads(get(server, "/openapi.json")[1])
    shown = set(page.evaluate("[...document.querySelectorAll('details.operation')].map((one) => one.id)"))
    expected = {
        item[method]["operationId"]
        for item in document["paths"].values()
        for method in ("get", "post")
        if method in item
    }
    assert shown == expected
    page.wait_for(f"document.querySelector('#predict input[name=model]').value === {json.dumps(NAME)}")
    fill(page, "predict-body", '{"instances": [[1, 2, 3.5]]}')
    page.evaluate("document.querySelector('#predict').open = true")
    page.evaluate("document.querySelector('#predict button').click()")
    answer = page.wait_for("document.querySelector('#predict .answer pre').textContent")
    assert json.loads(answer) == {"predictions": [[1.0, 2.0, 3.5]]}
    assert page.evaluate("document.querySelector('#predict .answer p').textContent").startswith("200 ")
    assert page.complaints() == []
    assert {url.split("/")[2] for url in page.requested() if not url.startswith(("data:", "about:"))} == {
        f"{HOST}:{server.rest_port}"
    }


def test_an_error_is_shown(page: Page) -> None:
    fill(page, "status-model", "no/body?")
    page.evaluate("document.querySelector('#status button').click()")
    answer = page.wait_for("document.querySelector('#status .answer pre').textContent")
    assert json.loads(answer) == {"error": "Servable not found for request: Specific(no/body?, 0)"}
    assert page.evaluate("document.querySelector('#status .answer p').className") == "bad"


def test_every_field_has_a_label_and_every_table_its_heads(page: Page) -> None:
    without = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter((one) => !one.labels.length).length"
    )
    assert without == 0
    assert page.evaluate("document.querySelectorAll('main, h1, nav[aria-label], a.skip').length") == 4
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every((one) => one.querySelector('th[scope]'))"
    )
