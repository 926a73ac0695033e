"""The models that a tensorflow.serving.ReloadConfigRequest names, as this server's own records. Pure.

Of tensorflow.serving.ModelConfig (tensorflow_serving/config/model_server_config.proto) name, base_path,
model_version_policy and version_labels are read; platform and type of a model are seen from its files.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from common.config import ModelConfig, VersionPolicy
from common.errors import InvalidArgumentError
from common.values import base_path, is_remote, labels, shown, text_value, version_policy

MAX_CONFIG_BYTES = 1 << 20
"""Of a message that holds a configuration."""

_Value = TypeVar("_Value")


def read_models(request: Any) -> tuple[ModelConfig, ...]:
    """All of them, in the request's order; none for an empty list. Raises InvalidArgumentError."""
    if request.config.WhichOneof("config") != "model_config_list":
        raise InvalidArgumentError(
            "The request holds no model_config_list, the only configuration that is supported"
        )
    models = tuple(_read_model(config) for config in request.config.model_config_list.config)
    repeated = [name for name, count in Counter(model.name for model in models).items() if count > 1]
    if repeated:
        raise InvalidArgumentError(f"Model names are given more than once: {shown(repeated)}")
    return models


def _read_model(config: Any) -> ModelConfig:
    name = _read("A model's name", text_value, config.name)
    return ModelConfig(
        name,
        _read(f"Model {name}: base_path", _absolute, config.base_path),
        version_policy=_read(f"Model {name}: model_version_policy", _policy, config.model_version_policy),
        labels=_read(f"Model {name}: version_labels", labels, dict(config.version_labels)),
    )


def _read(what: str, parse: Callable[[Any], _Value], value: Any) -> _Value:
    try:
        return parse(value)
    except ValueError as error:
        raise InvalidArgumentError(f"{what}: {error}") from None


def _absolute(value: Any) -> str:
    path = base_path(value)
    if not is_remote(path) and not path.startswith("/"):
        raise ValueError(f"a local path must be absolute, not {shown(path)}")
    return path


def _policy(policy: Any) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy("all")
        case "latest":
            # 0 is protobuf's way of saying nothing.
            return version_policy({"latest": {"num_versions": policy.latest.num_versions or 1}})
        case "specific":
            return version_policy({"specific": {"versions": list(policy.specific.versions)}})
        case _:
            return VersionPolicy()
