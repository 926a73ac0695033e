"""From the text of a configuration file to the records that the processes know. Pure.

Every key has one parser here. An error is a ValueError whose text begins with the model and the key that it is about.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import msgspec

from common import strict_json, values
from common.config import DeviceConfig, ModelConfig, ServerConfig
from common.config_format import ConfigurationFile, Device, Entry, Model

_SHOWN_NAME = 60

_MODEL: dict[str, Callable[[Any], Any]] = {
    "name": values.text_value,
    "base_path": values.base_path,
    "model_version_policy": values.version_policy,
    "labels": values.labels,
    "batch_size": values.batch_size,
    "shape": values.shape,
    "max_shapes": values.whole_number(1, values.MAX_SHAPES),
    "nireq": values.whole_number(1, values.MAX_NIREQ),
    "target_device": values.target_device,
    "plugin_config": values.plugin_config,
    "workers": values.whole_number(1, values.MAX_WORKERS),
    "layout": values.layout,
    "classification": values.classification,
    "regression": values.regression,
    "batching_parameters": values.batching_parameters,
}
_DEVICE: dict[str, Callable[[Any], Any]] = {
    "python": values.text_value,
    "emulate_on": values.target_device,
}
_FIELDS = {"model_version_policy": "version_policy"}
"""Keys of the file whose name in ModelConfig is another."""


class ConfigFile(msgspec.Struct, frozen=True):
    """What a configuration file says."""

    models: tuple[ModelConfig, ...]
    devices: dict[str, DeviceConfig]
    warnings: tuple[str, ...] = ()
    """What an operator should know of it, a line each."""


def parse_config(text: str, directory: PurePath, defaults: ServerConfig) -> ConfigFile:
    """The file's models and devices; relative paths in it count from `directory`. Raises ValueError.

    `defaults` is the server's configuration without the file.
    """
    if not text.strip():
        raise ValueError('the file is empty; at least {"model_config_list": []} is expected')
    document = strict_json.loads(text)
    _refuse_repetition(document, deep=False)
    known = ConfigurationFile.__struct_encode_fields__
    whole = values.json_object(document, known, required=("model_config_list",))
    if not isinstance(whole.get("$schema", ""), str):
        raise ValueError(f"$schema: text is accepted, not {values.shown(whole['$schema'])}")
    entries = whole["model_config_list"]
    if not isinstance(entries, list):
        raise ValueError(f"model_config_list: a list is accepted, not {values.shown(entries)}")
    devices = _devices(whole.get("devices", {}), directory)
    warnings: list[str] = []
    models: dict[str, ModelConfig] = {}
    for index, entry in enumerate(entries):
        with _at(_place(index, entry)):
            model = _model(index, entry, directory, warnings)
            if model.name in models:
                raise ValueError(f"name: it comes twice, the second time in model_config_list[{index}]")
            if values.is_in_cache(model.base_path, defaults.model_cache_dir):
                path = values.shown(model.base_path)
                raise ValueError(
                    f"base_path: {path} is in --model_cache_dir, which holds fetched models alone"
                )
            models[model.name] = model
    return ConfigFile(tuple(models.values()), devices, tuple(warnings))


def _model(index: int, entry: Any, directory: PurePath, warnings: list[str]) -> ModelConfig:
    config = values.json_object(entry, Entry.__struct_encode_fields__, required=("config",))["config"]
    _refuse_repetition(entry)
    found = values.json_object(config, Model.__struct_encode_fields__, required=("name", "base_path"))
    given = _parsed(found, _MODEL)
    given["base_path"] = values.located(given["base_path"], directory)
    if "shape" in given and given.pop("batch_size", None) is not None:
        warnings.append(f"{_place(index, entry)}: shape and batch_size are both given: batch_size is ignored")
    model = ModelConfig(**{_FIELDS.get(key, key): value for key, value in given.items()})
    warnings.extend(f"{_place(index, entry)}: {text}" for text in _idle_labels(model))
    return model


def _idle_labels(model: ModelConfig) -> Iterator[str]:
    """Labels that can never mean anything."""
    if model.version_policy.kind == "specific":
        for label, version in model.labels.items():
            if version not in model.version_policy.versions:
                yield f"labels: {values.shown(label)} names version {version}, which model_version_policy leaves out"


def _devices(value: Any, directory: PurePath) -> dict[str, DeviceConfig]:
    with _at("devices"):
        if not isinstance(value, dict):
            raise ValueError(f"a JSON object is expected, not {values.shown(value)}")
        _refuse_repetition(value)
        for name in value:
            values.target_device(name)
    devices = {}
    for name, entry in value.items():
        with _at(f"device {name}"):
            given = _parsed(values.json_object(entry, Device.__struct_encode_fields__), _DEVICE)
            if not given:
                raise ValueError(f"at least one key is expected of {', '.join(_DEVICE)}")
            if "python" in given:
                given["python"] = str(directory / given["python"])
            devices[name] = DeviceConfig(**given)
    with _at("devices"):
        values.check_devices(devices)
    return devices


def _parsed(found: dict[str, Any], parsers: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    given = {}
    for key, value in found.items():
        with _at(key):
            given[key] = parsers[key](value)
    return given


def _refuse_repetition(value: Any, deep: bool = True) -> None:
    repeated = strict_json.repeated_key(value) if deep else getattr(value, "repeated", None)
    if repeated is not None:
        raise ValueError(f"the key {values.shown(repeated)} comes twice")


def _place(index: int, entry: Any) -> str:
    """How an error names a model: by its name if it has one that can be said, else by its place in the file."""
    config = entry.get("config") if isinstance(entry, dict) else None
    name = config.get("name") if isinstance(config, dict) else None
    if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= _SHOWN_NAME:
        return f"model {name}"
    return f"model_config_list[{index}]"


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Put the place in front of what is wrong there."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
