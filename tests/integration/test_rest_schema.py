"""The server held against its own OpenAPI document: whatever is sent, no 500 and no answer that is not documented.

schemathesis makes requests out of the document, sound ones and broken ones. `make test-api` makes many more of them.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_url
from schemathesis.specs.openapi import checks

from tests.support import models
from tests.support.server import HOST, NAME, Server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(1200),
    # schemathesis draws names of its own by the random module now and then.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

EXAMPLES = 8
"""Of requests, an operation."""
DEEP_EXAMPLES = 300
"""Likewise, with --hypothesis-profile=deep."""

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
"""Left out: whether requests that fit the document are accepted (what a model takes stands in its metadata, not there),
and whether others are refused (further members of a body are ignored)."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An echo of rows of any length, and its document."""
    directory = tmp_path_factory.mktemp("schema")
    with Server(directory, models.echo(directory / "models")) as server:
        processes = {(one.pid, one.kind) for one in server.processes()}
        schema = from_url(f"http://{HOST}:{server.rest_port}/openapi.json")
        schema.hook("map_path_parameters")(_name_the_model)
        yield schema
        server.wait_idle()
        assert {(one.pid, one.kind) for one in server.processes()} == processes
        assert "Traceback" not in server.log()


def _name_the_model(context: Any, path_parameters: Any) -> Any:
    """Most requests are to get as far as the model."""
    if path_parameters and len(str(path_parameters.get("model", ""))) % 4:
        path_parameters["model"] = NAME
        if isinstance(path_parameters.get("version"), int) and path_parameters["version"] % 4:
            path_parameters["version"] = 1
    return path_parameters


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
def test_every_answer_is_documented(api: Any, mode: GenerationMode) -> None:
    deep = settings.get_current_profile_name() == "deep"
    profile = settings(
        max_examples=DEEP_EXAMPLES if deep else EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not deep,
        suppress_health_check=list(HealthCheck),
    )
    operations = [result.ok() for result in api.get_all_operations()]
    assert {operation.path for operation in operations} | {"/openapi.json"} == set(api.raw_schema["paths"])
    if mode is GenerationMode.NEGATIVE:
        # Of a path alone there is nothing that the document forbids: any text may be a model's name.
        operations = [operation for operation in operations if operation.body]
    for operation in operations:

        @profile
        @given(operation.as_strategy(generation_mode=mode))
        def hold(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        hold()
