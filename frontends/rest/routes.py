"""From a path to a resource, by the table of the API (frontends.rest.api).

Falcon's own router works on the decoded path, in which a `/` of a model's name can no longer be told from the path's,
and reads `:` in its own way. This one reads the path as it was sent: names and labels are percent-encoded UTF-8 and may
hold anything, `%2F` and `%3A` included.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from falcon import asgi
from falcon.routing import map_http_methods, set_default_responders

from frontends.rest.api import OPERATIONS

_SCHEME_AND_HOST = re.compile(r"https?://[^/]*", re.IGNORECASE)
_CACHED_PATHS = 512
_PARAMETER = re.compile(r"\\{(\w+)\\}")


def _pattern(template: str) -> re.Pattern[str]:
    """Of the paths that a template stands for; a parameter is anything without a slash."""
    return re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+?)", re.escape(template)))


_PATHS = [(_pattern(path), operation.kind) for operation in OPERATIONS for path in operation.paths]


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `version` is text as it came: only a resource knows what to say to one that is no number."""

    kind: str
    """Of frontends.rest.api.Operation."""
    model: str = ""
    version: str | None = None
    label: str | None = None


@functools.lru_cache(_CACHED_PATHS)
def parse_path(raw_path: str) -> Target | None:
    """The target of a percent-encoded path without query; None for a path that the API does not have."""
    host = _SCHEME_AND_HOST.match(raw_path)
    # The absolute form is what clients of a proxy send (RFC 9112 section 3.2.2).
    path = raw_path[host.end() :] if host is not None else raw_path
    for pattern, kind in _PATHS:
        match = pattern.fullmatch(path)
        if match is not None:
            return Target(kind, **{name: unquote(text) for name, text in match.groupdict().items()})
    return None


class Router:
    """Falcon's router interface over `parse_path`; resources are given by the kind of target that they serve."""

    def __init__(self, resources: Mapping[str, object]) -> None:
        self._found: dict[str, tuple[object, dict[str, Any]]] = {}
        for kind, resource in resources.items():
            methods = map_http_methods(resource)
            set_default_responders(methods, asgi=True)
            self._found[kind] = (resource, methods)

    def find(
        self, uri: str, req: asgi.Request | None = None
    ) -> tuple[object, dict[str, Any], dict[str, Any], str | None] | None:
        """Called by falcon for every request. None makes it answer 404."""
        raw_path = req.scope.get("raw_path") if req is not None else None
        target = parse_path(raw_path.decode("latin-1") if raw_path else quote(uri))
        if target is None:
            return None
        resource, methods = self._found[target.kind]
        return resource, methods, {"target": target}, None
