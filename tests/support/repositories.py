"""A whole server of many models, and the configuration file that tells it of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.clients import GrpcClient
from tests.support.server import Server
from tests.support.waiting import until

FAST_POLL = {"FILE_SYSTEM_POLL_WAIT_SECONDS": "0.2"}

Models = Mapping[str, Mapping[str, Any]]
"""By name, what the configuration file says of a model beside its name."""

_ONLY_MODEL = ("model_name", "model_path", "target_device")
"""Options that only the command `model` has."""


def write_config(path: Path, models: Models, **more: Any) -> None:
    """Write a configuration file as careful operators do: under another name, then renamed."""
    entries = [{"config": {"name": name, **model}} for name, model in models.items()]
    replace(path, json.dumps({"model_config_list": entries, **more}))


def replace(path: Path, text: str) -> None:
    """Give a file another content in one step."""
    staged = path.with_name(path.name + ".new")
    staged.write_text(text)
    staged.rename(path)


class ConfigServer(Server):
    """`ie_serving config`; its file is `config_path`, its models are of the device FAKE where they do not say."""

    subcommand = "config"

    def __init__(
        self,
        directory: Path,
        models: Models,
        *,
        devices: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] = FAST_POLL,
        **options: Any,
    ) -> None:
        self.config_path = directory / "config.json"
        self._more = {"devices": devices} if devices else {}
        self.configure(models)
        super().__init__(
            directory, directory, environment=environment, config_path=self.config_path, **options
        )

    def arguments(self) -> list[str]:
        """Of the command `config`."""
        return [f"--{name}={value}" for name, value in self.options.items() if name not in _ONLY_MODEL]

    def configure(self, models: Models) -> None:
        """Write the file."""
        completed = {name: {"target_device": "FAKE", **model} for name, model in models.items()}
        write_config(self.config_path, completed, **self._more)


def wait_state(client: GrpcClient, model: str, version: int, state: str) -> None:
    """Until GetModelStatus says that the version is in this state."""
    until(
        lambda: _state(client, model, version) == state,
        f"version {version} of {model} is {state}",
    )


def _state(client: GrpcClient, model: str, version: int) -> str:
    """Empty where there is no such model or version."""
    found = client.known_states(model) or {}
    return found.get(version, ("",))[0]
