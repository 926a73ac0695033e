"""The resources that describe the API: the OpenAPI document, and a page of our own that shows it and tries it.

The page (docs_page/) needs nothing but this server: no address of another host is in it, and its policy forbids any.
"""

from pathlib import Path

import orjson
from falcon import asgi

from frontends.rest.api import HTML, JSON
from frontends.rest.openapi import openapi_document
from frontends.rest.routes import Target

_DIRECTORY = Path(__file__).with_name("docs_page")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class FixedResource:
    """`GET` of a text that never changes."""

    def __init__(self, text: bytes, content_type: str) -> None:
        self._text = text
        self._content_type = content_type

    async def on_get(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """The text."""
        resp.content_type = self._content_type
        resp.data = self._text
        resp.set_header("Cache-Control", "no-cache")
        resp.set_header("X-Content-Type-Options", "nosniff")
        if self._content_type == HTML:
            resp.set_header("Content-Security-Policy", _POLICY)
            resp.set_header("Referrer-Policy", "no-referrer")

    on_head = on_get


def documentation() -> dict[str, FixedResource]:
    """The resources by the kind of path."""
    return {
        "openapi": FixedResource(orjson.dumps(openapi_document()), JSON),
        "docs": FixedResource(_page("page.html"), HTML),
        "docs_script": FixedResource(_page("page.js"), "text/javascript; charset=utf-8"),
        "docs_style": FixedResource(_page("page.css"), "text/css; charset=utf-8"),
    }


def _page(name: str) -> bytes:
    return (_DIRECTORY / name).read_bytes()
