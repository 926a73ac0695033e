"""Paths as they are sent → what they name."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontends.rest.routes import Target, parse_path

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models/m", Target("status", "m")),
        ("/v1/models/m/versions/2", Target("status", "m", "2")),
        ("/v1/models/m/labels/stable", Target("status", "m", label="stable")),
        ("/v1/models/m/metadata", Target("metadata", "m")),
        ("/v1/models/m/versions/2/metadata", Target("metadata", "m", "2")),
        ("/v1/models/m/labels/a%2Fb/metadata", Target("metadata", "m", label="a/b")),
        ("/v1/models/m:predict", Target("predict", "m")),
        ("/v1/models/m/versions/2:predict", Target("predict", "m", "2")),
        ("/v1/models/m/labels/canary:predict", Target("predict", "m", label="canary")),
        ("/v1/models/m:classify", Target("classify", "m")),
        ("/v1/models/m:regress", Target("regress", "m")),
        ("/v1/models/m/versions/x:predict", Target("predict", "m", "x")),
        ("/v1/models/a:b:predict", Target("predict", "a:b")),
        ("/v1/models/m:other", Target("status", "m:other")),
        ("/v1/models/m%3Apredict", Target("status", "m:predict")),
        ("/v1/models/res.net-50", Target("status", "res.net-50")),
        ("/v1/models/a%2Fb", Target("status", "a/b")),
        ("/v1/models/%FF", Target("status", "\ufffd")),
        ("/v1/models/metadata", Target("status", "metadata")),
        ("http://host:8000/v1/models/m", Target("status", "m")),
        ("/v1/config", Target("config")),
        ("/v1/config/reload", Target("reload")),
        ("HTTP://host/v1/config", Target("config")),
    ],
)
def test_known_paths(path: str, target: Target) -> None:
    assert parse_path(path) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/models",
        "/v1/models/",
        "/v1/models/m/",
        "/v1/models//metadata",
        "/v1/models/m/versions",
        "/v1/models/m/versions/",
        "/v1/models/m/versions/1/2",
        "/v1/models/m/versions/1/labels/a",
        "/v1/models/m/other",
        "/v1/models/m/metadata/x",
        "/v1/config/",
        "/v1/config/other",
        "/v1/config/reload/x",
        "/v1/configs",
        "/v2/models/m",
        "x/v1/models/m",
        "*",
    ],
)
def test_other_paths(path: str) -> None:
    assert parse_path(path) is None


@given(NAMES, NAMES, st.sampled_from(["", "/metadata", ":predict"]))
def test_any_name_can_be_sent(model: str, label: str, end: str) -> None:
    kind = {"": "status", "/metadata": "metadata", ":predict": "predict"}[end]
    path = f"/v1/models/{quote(model, safe='')}/labels/{quote(label, safe='')}{end}"
    assert parse_path(path) == Target(kind, model, label=label)
