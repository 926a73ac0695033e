"""The REST API as one table. The router (frontends.rest.routes) and the OpenAPI document (frontends.rest.openapi) both
read it, so that neither can know a path that the other does not.

    /v1/models/{model}[/versions/{version}|/labels/{label}]            status
    /v1/models/{model}[/versions/{version}|/labels/{label}]/metadata   metadata
    /v1/models/{model}[/versions/{version}|/labels/{label}]:VERB       predict, classify, regress
    /v1/config, /v1/config/reload                                      config, reload
    /openapi.json, /docs                                               openapi, docs

Paths and bodies are those of TensorFlow Serving's REST API; `/v1/config` and `/v1/config/reload` are those of the C++
OpenVINO Model Server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from frontends.rest import schemas

JSON = "application/json"
HTML = "text/html; charset=utf-8"

OF_A_MODEL = (
    "/v1/models/{model}",
    "/v1/models/{model}/versions/{version}",
    "/v1/models/{model}/labels/{label}",
)
"""What the paths of a model begin with: its default version (or all), one by number, one by label."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of path, and the one method (beside HEAD and OPTIONS) that it has."""

    kind: str
    """Names the resource that serves it."""
    method: str
    """`get` or `post`."""
    path: str
    """The path; with `of_a_model`, what follows OF_A_MODEL."""
    tag: str
    summary: str
    description: str
    answers: Mapping[int, tuple[str, str, Mapping[str, Any]]]
    """By status: description, media type, schema."""
    request: Mapping[str, Any] | None = None
    """Schema of the body; None: the body is not looked at."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Bodies, by what they show."""
    errors: tuple[int, ...] = ()
    """Statuses whose body is an Error."""
    of_a_model: bool = False
    documented: bool = True

    @property
    def paths(self) -> tuple[str, ...]:
        """Every template, with its parameters in braces."""
        return tuple(start + self.path for start in OF_A_MODEL) if self.of_a_model else (self.path,)


_ASKING = (404, 503)
_INFERRING = (400, 404, 408, 413, 415, 500, 503, 504)
_DOCUMENT = {200: ("The document", JSON, {"type": "object"})}


def _json(text: str, schema: str) -> dict[int, tuple[str, str, Mapping[str, Any]]]:
    return {200: (text, JSON, schemas.reference(schema))}


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "predict",
        "post",
        ":predict",
        "Inference",
        "Infer",
        "Infers tensors. In row format ('instances') the first dimension of every input and output is the instances; "
        "in column format ('inputs') each tensor is given whole. The answer is in the request's format.",
        _json("The outputs", "PredictResponse"),
        schemas.reference("PredictRequest"),
        schemas.PREDICT_EXAMPLES,
        _INFERRING,
        of_a_model=True,
    ),
    Operation(
        "classify",
        "post",
        ":classify",
        "Inference",
        "Classify examples",
        "Infers examples, whose features are the model's inputs, and gives the classes of each with their scores.",
        _json("A list of [label, score] for each example", "ClassifyResponse"),
        schemas.reference("ExamplesRequest"),
        schemas.EXAMPLES_EXAMPLES,
        _INFERRING,
        of_a_model=True,
    ),
    Operation(
        "regress",
        "post",
        ":regress",
        "Inference",
        "Regress examples",
        "Infers examples, whose features are the model's inputs, and gives one value for each.",
        _json("A value for each example", "RegressResponse"),
        schemas.reference("ExamplesRequest"),
        schemas.EXAMPLES_EXAMPLES,
        _INFERRING,
        of_a_model=True,
    ),
    Operation(
        "metadata",
        "get",
        "/metadata",
        "Models",
        "What a model takes and gives",
        "Names, types and shapes of the inputs and outputs of a version.",
        _json("The signature", "MetadataResponse"),
        errors=_ASKING,
        of_a_model=True,
    ),
    Operation(
        "status",
        "get",
        "",
        "Models",
        "State of a model",
        "The state of one version, or of all versions of a model; for one that could not be loaded, the reason.",
        _json("The states", "StatusResponse"),
        errors=_ASKING,
        of_a_model=True,
    ),
    Operation(
        "config",
        "get",
        "/v1/config",
        "Server",
        "State of all models",
        "The states of the versions of every model that is configured.",
        _json("The states by model", "ConfigResponse"),
        errors=(503,),
    ),
    Operation(
        "reload",
        "post",
        "/v1/config/reload",
        "Server",
        "Read the configuration file again",
        "Serves what the configuration file says now, and answers when its models are loaded or have failed to.",
        {
            200: ("Nothing had changed", JSON, schemas.reference("ConfigResponse")),
            201: ("The new configuration is in force", JSON, schemas.reference("ConfigResponse")),
        },
        errors=(400, 408, 413, 500, 503, 504),
    ),
    Operation(
        "openapi", "get", "/openapi.json", "Server", "This document", "This API as OpenAPI 3.1.", _DOCUMENT
    ),
    Operation(
        "docs",
        "get",
        "/docs",
        "Server",
        "This API to read and to try",
        "A page that shows this document and sends requests.",
        {200: ("The page", HTML, {"type": "string"})},
    ),
    Operation("docs_script", "get", "/docs/page.js", "Server", "", "", {}, documented=False),
    Operation("docs_style", "get", "/docs/page.css", "Server", "", "", {}, documented=False),
)
"""In the order in which a path is held against them."""
