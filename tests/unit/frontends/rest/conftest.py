"""gunicorn as the server has it."""

from __future__ import annotations

import pytest
from gunicorn.asgi import protocol
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol
from gunicorn.workers import gasgi

from frontends.rest import connection, heads


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn as the server has it, and no head known."""
    for module, name, own in (
        (gasgi, "ASGIProtocol", protocol.ASGIProtocol),
        (protocol, "PythonProtocol", PythonProtocol),
        (protocol, "CallbackRequest", CallbackRequest),
    ):
        monkeypatch.setattr(module, name, own)
    connection.install()
    heads._heads.clear()
