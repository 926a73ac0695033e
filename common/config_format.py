"""What may stand in the configuration file, as records that its JSON Schema is made from. Pure.

The records are never filled: `common.config_file` reads the file key by key, because its errors name model and key and
say what is accepted. What the schema refuses, the reader refuses; the reader looks more closely (whether names come
twice, what devices and paths look like). UNSET stands for a key that is absent; null is no value of any key.
"""

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from common.config import MEGABYTE, BatchingParameters, ModelConfig
from common.values import MAX_NIREQ, MAX_SHAPES, MAX_TOP_K, MAX_WORKERS

MAX_FILE_BYTES = MEGABYTE
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_MODEL = ModelConfig("", "")
_BATCHING = BatchingParameters()

_Version: TypeAlias = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
_Layout: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z]{1,8}$")]
_Dimensions: TypeAlias = (
    Annotated[str, Meta(pattern=r"^\s*([Aa][Uu][Tt][Oo]|\(.+\)|\[.+\])\s*$")]
    | Annotated[list[Annotated[int, Meta(ge=-1)]], Meta(min_length=1)]
)


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base: unknown keys are errors."""


class AllVersions(_Record, frozen=True):
    """No further keys."""


class LatestVersions(_Record, frozen=True):
    """The highest ones."""

    num_versions: Annotated[int, Meta(ge=1, description="How many.")]


class SpecificVersions(_Record, frozen=True):
    """The ones that are named."""

    versions: Annotated[
        list[_Version],
        Meta(min_length=1, description="Which ones. One that is absent is served once it comes."),
    ]


class ModelVersionPolicy(_Record, frozen=True):
    """Which of the versions in storage are served: exactly one of the keys."""

    all: Annotated[AllVersions | UnsetType, Meta(description="All of them.")] = UNSET
    latest: Annotated[LatestVersions | UnsetType, Meta(description="The highest ones.")] = UNSET
    specific: Annotated[SpecificVersions | UnsetType, Meta(description="The ones that are named.")] = UNSET


class Batching(_Record, frozen=True):
    """How requests of a model are gathered into batches; the names are TensorFlow Serving's."""

    max_batch_size: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="Rows of a batch, at most.",
                extra_json_schema={"default": _BATCHING.max_batch_size},
            ),
        ]
        | UnsetType
    ) = UNSET
    batch_timeout_micros: (
        Annotated[
            int,
            Meta(
                ge=0,
                description="So long a request waits for others to fill its batch although a worker is free "
                "[microseconds].",
                extra_json_schema={"default": _BATCHING.batch_timeout_micros},
            ),
        ]
        | UnsetType
    ) = UNSET
    allowed_batch_sizes: (
        Annotated[
            list[Annotated[int, Meta(ge=1)]],
            Meta(
                description="Sizes that batches are padded to: ascending, the last one max_batch_size. Without: "
                "the powers of two below max_batch_size, and that."
            ),
        ]
        | UnsetType
    ) = UNSET
    max_enqueued_batches: (
        Annotated[
            int,
            Meta(
                ge=1,
                description="So many batches' rows may wait; further requests are refused. Without: no bound but "
                "--max_queue.",
            ),
        ]
        | UnsetType
    ) = UNSET


class Classification(_Record, frozen=True):
    """How Classify and :classify read the outputs."""

    output: (
        Annotated[_Text, Meta(description="The output of scores. Without: the only one.", examples=["prob"])]
        | UnsetType
    ) = UNSET
    labels: (
        Annotated[
            str,
            Meta(
                pattern=r"^[^/]+$",
                description="File in the version's directory that names the classes, one a line, in UTF-8. Without: "
                "labels.txt where there is one, else the numbers of the classes are their names.",
                examples=["imagenet.txt"],
            ),
        ]
        | UnsetType
    ) = UNSET
    top_k: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=MAX_TOP_K,
                description="How many classes are given, highest score first. Without: all, in the model's order.",
                examples=[5],
            ),
        ]
        | UnsetType
    ) = UNSET


class Regression(_Record, frozen=True):
    """How Regress and :regress read the outputs."""

    output: (
        Annotated[_Text, Meta(description="The output of values. Without: the only one.", examples=["age"])]
        | UnsetType
    ) = UNSET


class Model(_Record, frozen=True):
    """One model to serve."""

    name: Annotated[_Text, Meta(description="Name that clients use.", examples=["resnet"])]
    base_path: Annotated[
        _Text,
        Meta(
            description="Directory that holds one directory per version: a local path (a relative one counts from the "
            "directory of this file), or the address of one in a store, s3://, gs://, az:// or azfs://.",
            examples=["/opt/ml/models/resnet", "s3://bucket/models/resnet"],
        ),
    ]
    model_version_policy: (
        Annotated[
            ModelVersionPolicy,
            Meta(
                description="Which of the versions in storage are served.",
                extra_json_schema={
                    "minProperties": 1,
                    "maxProperties": 1,
                    "default": {"latest": {"num_versions": _MODEL.version_policy.num_versions}},
                },
            ),
        ]
        | UnsetType
    ) = UNSET
    labels: (
        Annotated[
            dict[_Text, _Version],
            Meta(
                description="Versions by the names that clients may use for them.", examples=[{"stable": 3}]
            ),
        ]
        | UnsetType
    ) = UNSET
    batch_size: (
        Annotated[
            Annotated[int, Meta(ge=1)]
            | Annotated[str, Meta(pattern=r"^\s*(\+?[0-9]+|[Aa][Uu][Tt][Oo])\s*$")],
            Meta(
                description="First dimension of every input: a number, or auto for whatever a request brings. "
                "Without: the model's own. `shape` wins over it.",
                examples=[16, "16", "auto"],
            ),
        ]
        | UnsetType
    ) = UNSET
    shape: (
        Annotated[
            _Dimensions
            | Annotated[str, Meta(pattern=r"^\s*\{")]
            | Annotated[dict[_Text, _Dimensions], Meta(min_length=1)],
            Meta(
                description="Shape of the only input, or shapes by input name; auto for whatever a request brings; "
                "-1 for a dimension of any size. Without: the model's own.",
                examples=[
                    "auto",
                    "(1,3,224,224)",
                    [1, 3, 224, 224],
                    {"input1": "(1,3,200,200)", "input2": [1, 10]},
                ],
            ),
        ]
        | UnsetType
    ) = UNSET
    max_shapes: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=MAX_SHAPES,
                description="Compiled shapes that each worker keeps of a version of which requests bring their own.",
                extra_json_schema={"default": _MODEL.max_shapes},
            ),
        ]
        | UnsetType
    ) = UNSET
    nireq: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=MAX_NIREQ,
                description="Requests of a version that each worker infers at once. Default: 1; of a model on CPU that "
                "takes longer than a millisecond, as many as OpenVINO advises for throughput.",
            ),
        ]
        | UnsetType
    ) = UNSET
    target_device: (
        Annotated[
            _Text,
            Meta(
                description="OpenVINO device that infers it. Each one has workers of its own.",
                examples=["CPU", "GPU.1", "MULTI:GPU,CPU", "HETERO:GPU,CPU", "AUTO"],
                extra_json_schema={"default": _MODEL.target_device},
            ),
        ]
        | UnsetType
    ) = UNSET
    plugin_config: (
        Annotated[
            dict[_Text, str | float | bool],
            Meta(
                description="OpenVINO properties by name.",
                examples=[{"NUM_STREAMS": "2"}, {"CPU_THROUGHPUT_STREAMS": "CPU_THROUGHPUT_AUTO"}],
            ),
        ]
        | UnsetType
    ) = UNSET
    workers: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=MAX_WORKERS,
                description="Worker processes of the device; the greatest number of the models of one device counts. "
                "Without: the option --workers.",
            ),
        ]
        | UnsetType
    ) = UNSET
    layout: (
        Annotated[
            _Layout | Annotated[dict[_Text, _Layout], Meta(min_length=1)],
            Meta(
                description="Layout of the only input, or layouts by input name: a letter for each dimension. Encoded "
                "images are laid out by it as NCHW or NHWC. Without: the model's own.",
                examples=["NHWC", {"image": "NCHW"}],
            ),
        ]
        | UnsetType
    ) = UNSET
    classification: (
        Annotated[Classification, Meta(description="How Classify and :classify read the outputs.")]
        | UnsetType
    ) = UNSET
    regression: (
        Annotated[Regression, Meta(description="How Regress and :regress read the outputs.")] | UnsetType
    ) = UNSET
    batching_parameters: (
        Annotated[
            Batching,
            Meta(description="How requests are gathered into batches. Without: each is inferred by itself."),
        ]
        | UnsetType
    ) = UNSET


class Entry(_Record, frozen=True):
    """An element of the list of models."""

    config: Model


class Device(_Record, frozen=True):
    """How the workers of a device are run."""

    python: (
        Annotated[
            _Text,
            Meta(
                description="Interpreter of its workers, in which another release of OpenVINO is installed; a relative "
                "path counts from the directory of this file. Without: the server's own.",
                examples=["/opt/openvino-2022.3/bin/python"],
            ),
        ]
        | UnsetType
    ) = UNSET
    emulate_on: (
        Annotated[
            _Text, Meta(description="For development: the device that stands in for it.", examples=["CPU"])
        ]
        | UnsetType
    ) = UNSET


class ConfigurationFile(_Record, frozen=True, kw_only=True):
    """The models that `ie_serving config --config_path FILE` serves."""

    schema: (
        Annotated[
            str, Meta(description="Address of this schema, for editors; the server does not look at it.")
        ]
        | UnsetType
    ) = msgspec.field(name="$schema", default=UNSET)
    model_config_list: Annotated[list[Entry], Meta(description="The models; each name once.")]
    devices: (
        Annotated[
            dict[str, Annotated[Device, Meta(extra_json_schema={"minProperties": 1})]],
            Meta(
                description="By `target_device` of the models. A device that is not named here runs as it is."
            ),
        ]
        | UnsetType
    ) = UNSET


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the configuration file."""
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "Configuration file of ie_serving",
        **msgspec.json.schema(ConfigurationFile),
    }
