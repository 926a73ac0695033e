"""The table of the API, the document that is made of it, and the router, held against each other."""

import json
import re
from typing import Any

import pytest
from falcon import testing
from jsonschema import Draft202012Validator

from common.config import ServerConfig
from frontends.rest.api import OPERATIONS
from frontends.rest.app import create_app
from frontends.rest.openapi import openapi_document
from frontends.rest.routes import parse_path
from tests.unit.frontends.fake_dataplane import FakeDataplane, add_one

DOCUMENT = openapi_document()


@pytest.fixture(scope="module")
def client() -> testing.TestClient:
    dataplane = FakeDataplane({"m": {1: add_one(shape=(-1, 2))}}, labels={"m": {"stable": 1}})
    return testing.TestClient(create_app(dataplane, ServerConfig(models=(), run_dir="")))


def filled(path: str) -> str:
    return path.replace("{model}", "m").replace("{version}", "1").replace("{label}", "stable")


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        found = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return found.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_path_leads_to_its_operation_and_has_its_parameters() -> None:
    for operation in OPERATIONS:
        for path in operation.paths:
            target = parse_path(filled(path))
            assert target is not None
            assert target.kind == operation.kind
            if operation.documented:
                item = DOCUMENT["paths"][path]
                named = {parameter["name"] for parameter in item.get("parameters", [])}
                assert named == set(re.findall(r"{(\w+)}", path))


def test_operations_have_names_of_their_own() -> None:
    names = [
        described["operationId"]
        for item in DOCUMENT["paths"].values()
        for method, described in item.items()
        if method != "parameters"
    ]
    assert len(set(names)) == len(names)


def test_every_operation_is_served_and_no_other_method(client: testing.TestClient) -> None:
    for path, item in DOCUMENT["paths"].items():
        allowed = {method.upper() for method in item if method != "parameters"}
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE"):
            result = client.simulate_request(method, filled(path))
            assert (result.status_code == 405) == (method not in allowed), (method, path)


@pytest.mark.parametrize("name", ["PredictRequest", "ExamplesRequest"])
def test_the_examples_fit_their_schema(name: str) -> None:
    validator = Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )
    examples = [
        example
        for operation in OPERATIONS
        if operation.request == {"$ref": f"#/components/schemas/{name}"}
        for example in operation.examples.values()
    ]
    assert examples
    for example in examples:
        validator.validate(example)


def test_answers_fit_their_schemas(client: testing.TestClient) -> None:
    bodies = {
        "predict": '{"instances": [[1, 2]]}',
        "classify": '{"examples": [{"data": [1, 2]}]}',
        "regress": "{}",
        "reload": None,
    }
    for operation in OPERATIONS:
        if not operation.documented:
            continue
        result = client.simulate_request(
            operation.method.upper(), filled(operation.paths[-1]), body=bodies.get(operation.kind)
        )
        described = DOCUMENT["paths"][operation.paths[-1]][operation.method]["responses"][
            str(result.status_code)
        ]
        if "$ref" in described:
            described = DOCUMENT["components"]["responses"][str(result.status_code)]
        media_type, content = next(iter(described["content"].items()))
        assert result.headers["content-type"] == media_type
        document = json.loads(result.text) if media_type == "application/json" else result.text
        Draft202012Validator({**content["schema"], "components": DOCUMENT["components"]}).validate(document)


def test_the_document_is_served(client: testing.TestClient) -> None:
    assert client.simulate_get("/openapi.json").json == DOCUMENT


def test_the_page_loads_nothing_from_elsewhere(client: testing.TestClient) -> None:
    for path in ("/docs", "/docs/page.js", "/docs/page.css"):
        result = client.simulate_get(path)
        assert result.status_code == 200
        assert "//" not in result.text.replace("// ", "")
        assert result.headers["x-content-type-options"] == "nosniff"
    policy = client.simulate_get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
