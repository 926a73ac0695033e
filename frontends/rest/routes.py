"""From a path to a resource.

Falcon's own router works on the decoded path, in which a `/` of a model's name can no longer be told from the path's,
and reads `:` in its own way. This one reads the path as it was sent:

    /v1/models/NAME[/versions/VERSION|/labels/LABEL]            status
    /v1/models/NAME[/versions/VERSION|/labels/LABEL]/metadata   metadata
    /v1/models/NAME[/versions/VERSION|/labels/LABEL]:VERB       predict, classify, regress

NAME and LABEL are percent-encoded UTF-8 and may hold anything, `%2F` and `%3A` included.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from falcon import asgi
from falcon.routing import map_http_methods, set_default_responders

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/]+?)"
    r"(?:/versions/(?P<version>[^/]+?)|/labels/(?P<label>[^/]+?))?"
    r"(?:/(?P<metadata>metadata)|:(?P<verb>predict|classify|regress))?"
)
_SCHEME_AND_HOST = re.compile(r"https?://[^/]*", re.IGNORECASE)
_CACHED_PATHS = 512


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `version` is text as it came: only a resource knows what to say to one that is no number."""

    kind: str
    """`status`, `metadata`, `predict`, `classify` or `regress`."""
    model: str
    version: str | None = None
    label: str | None = None


@functools.lru_cache(_CACHED_PATHS)
def parse_path(raw_path: str) -> Target | None:
    """The target of a percent-encoded path without query; None for a path that the API does not have."""
    match = _PATH.fullmatch(raw_path)
    if match is None and (host := _SCHEME_AND_HOST.match(raw_path)) is not None:
        # The absolute form, which clients of a proxy send (RFC 9112 section 3.2.2).
        match = _PATH.fullmatch(raw_path, host.end())
    if match is None:
        return None
    version, label = match["version"], match["label"]
    return Target(
        (match["metadata"] and "metadata") or match["verb"] or "status",
        unquote(match["model"]),
        None if version is None else unquote(version),
        None if label is None else unquote(label),
    )


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
