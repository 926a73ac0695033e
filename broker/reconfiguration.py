"""Which configuration is in force, where the next one comes from, and who waits for it to take effect. Pure.

    watched file ── storekeeper ── ConfigRead ──┐
    client ── frontend ── Reconfigure ──────────┼─▶ models → registry, devices and sizes → fleet, Watch → storekeeper
    ie_serving scale ── ScaleQuery ─────────────┘                        └─▶ Reconfigured, once all of it was tried

What is applied is written down with everything that follows from it, before anybody is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from broker.commands import Configuration, WantedState
from broker.fleet import Fleet
from broker.models import Changes
from broker.outbox import ERROR, INFO, WARNING, Outbox
from broker.peers import Frontend, Peers
from broker.planning import ACKNOWLEDGE_TIMEOUT_NS
from broker.registry import Registry
from common.config import DeviceConfig, ModelConfig, ServerConfig
from common.errors import Code, WireError
from common.messages import (
    ConfigRead,
    Keep,
    ReadConfig,
    Reconfigure,
    Reconfigured,
    ScaleQuery,
    Watch,
    Watched,
)

MAX_REPLICAS = 64

RECONFIGURE_NS = 600_000_000_000
"""A frontend is answered at the latest after so long; what is not loaded by then goes on loading."""

MAX_WAITING = 64
"""Calls for another configuration that are not answered yet."""

_FROM_CALLERS = ("name", "base_path", "version_policy", "labels")
"""What a client's configuration of a model always says; the rest it may leave as it is."""


def pool_sizes(models: Iterable[ModelConfig], workers: int, scaled: dict[str, int]) -> dict[str, int]:
    """Workers by device. `workers` is the server's number for models that name none."""
    sizes: dict[str, int] = {}
    for model in models:
        size = workers if model.workers is None else model.workers
        sizes[model.target_device] = max(size, sizes.get(model.target_device, 0))
    return {device: scaled.get(device, size) for device, size in sizes.items()}


def merged(given: ModelConfig, present: ModelConfig | None) -> ModelConfig:
    """A client's configuration of a model, completed by the present one where that is of the same model."""
    if present is None or present.base_path != given.base_path:
        return given
    default = ModelConfig(given.name, given.base_path)
    kept = {
        name: getattr(present, name)
        for name in ModelConfig.__struct_fields__
        if name not in _FROM_CALLERS and getattr(given, name) == getattr(default, name)
    }
    return msgspec.structs.replace(given, **kept)


@dataclass(slots=True, eq=False)
class _Caller:
    """A Reconfigure that is not answered yet."""

    frontend: str
    id: int
    deadline: int
    read: int = 0
    """Of the ReadConfig whose answer it waits for; 0: its configuration is in force."""
    changed: bool = False
    tried_at: int = 0
    """Since when everything was tried."""


class Reconfiguration:
    """The configuration's part of the core."""

    def __init__(
        self,
        config: ServerConfig,
        state: WantedState,
        registry: Registry,
        fleet: Fleet,
        peers: Peers,
        out: Outbox,
    ) -> None:
        self._config = config
        start = Configuration(config.models, config.devices)
        self.in_force = state.configuration or start
        self.generation = state.generation
        self.error = state.config_error
        """Why the configuration file is not in force."""
        self.scaled = dict(state.scaled)
        """Workers of the devices that were scaled by hand."""
        self._file = state.file or start
        self._registry = registry
        self._fleet = fleet
        self._peers = peers
        self._out = out
        self._callers: list[_Caller] = []
        self._reads = 0
        self._watch: Watch | None = None
        self._keep: Keep | None = None
        """As the present storekeeper was last told."""
        self._seen: object = None
        fleet.configure(state.pools, self.in_force.devices, 0)
        self._size_pools(0)
        self._warn_of_emulation({})

    # ---- events

    def storekeeper_greeted(self) -> None:
        """Tell it everything: first what it must not remove."""
        self._watch = self._keep = None
        self._tell_keep()
        self._tell_watch()
        for caller in self._callers:
            if caller.read:
                self._to_storekeeper(ReadConfig(caller.read))

    def config_read(self, message: ConfigRead, now: int) -> None:
        """What the configuration file says, because it has changed or because somebody asked."""
        asked = [caller for caller in self._callers if caller.read and caller.read == message.id]
        if message.error:
            if message.error != self.error:
                self._out.say(ERROR, f"the configuration file changes nothing: {message.error}")
            self.error = message.error
            for caller in asked:
                self._refuse(caller, Code.INVALID_ARGUMENT, message.error)
            return
        if self.error:
            self._out.say(INFO, "the configuration file can be used again")
        self.error = ""
        said = Configuration(message.models, message.devices)
        if said == self._file and not message.id:
            # Nothing new since it last said so, and a client may have set another configuration meanwhile.
            return
        self._file = said
        changed = self._apply(said, now)
        for caller in asked:
            caller.read = 0
            caller.changed = changed

    def reconfigure(self, frontend: Frontend, message: Reconfigure, now: int) -> None:
        """A client asks for another configuration."""
        caller = _Caller(frontend.name, message.id, now + RECONFIGURE_NS)
        self._callers = [
            one for one in self._callers if (one.frontend, one.id) != (caller.frontend, caller.id)
        ]
        if len(self._callers) >= MAX_WAITING:
            self._refuse(
                caller, Code.RESOURCE_EXHAUSTED, f"{MAX_WAITING} other calls for a configuration wait"
            )
        elif message.models is not None:
            self._reconfigure_by(caller, message.models, now)
        elif not self._config.config_path:
            self._refuse(caller, Code.FAILED_PRECONDITION, "no configuration file is watched")
        else:
            self._reads += 1
            caller.read = self._reads
            self._callers.append(caller)
            self._to_storekeeper(ReadConfig(caller.read))

    def frontend_died(self, name: str) -> None:
        """Its calls need no answer any more."""
        self._callers = [caller for caller in self._callers if caller.frontend != name]

    def scale(self, query: ScaleQuery, now: int) -> str:
        """Want so many workers of a device; why not, if that cannot be."""
        devices = {model.target_device for model in self.in_force.models}
        if query.device not in devices:
            known = ", ".join(sorted(devices)) or "none"
            return f"no model is served on device {query.device}; devices in use: {known}"
        if not 1 <= query.replicas <= MAX_REPLICAS:
            return f"the number of workers must be between 1 and {MAX_REPLICAS}, not {query.replicas}"
        self.scaled[query.device] = query.replicas
        self._size_pools(now)
        self._out.say(INFO, f"device {query.device} is scaled to {query.replicas} worker(s)")
        return ""

    # ---- decisions

    def settle(self, generation: int, now: int) -> None:
        """Let pools and storekeeper follow the registry; `generation` is that of the present catalogue."""
        if self._seen is not self._registry.view:
            self._seen = self._registry.view
            self._size_pools(now)
            self._tell_keep()
        self._answer(generation, now)

    def is_restless(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._callers)

    def remembered(self, state: WantedState) -> WantedState:
        """The state, with what a successor must know of the configuration."""
        start = Configuration(self._config.models, self._config.devices)
        return msgspec.structs.replace(
            state,
            pools=dict(self._fleet.wanted),
            scaled=dict(self.scaled),
            generation=self.generation,
            configuration=self.in_force if self.in_force != start else None,
            file=self._file if self._file != start else None,
            config_error=self.error,
        )

    # ---- helpers

    def _reconfigure_by(self, caller: _Caller, models: tuple[ModelConfig, ...], now: int) -> None:
        names = [model.name for model in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            self._refuse(caller, Code.INVALID_ARGUMENT, f"configured more than once: {', '.join(twice)}")
            return
        present = {model.name: model for model in self.in_force.models}
        complete = tuple(merged(model, present.get(model.name)) for model in models)
        caller.changed = self._apply(Configuration(complete, self.in_force.devices), now)
        self._callers.append(caller)

    def _apply(self, new: Configuration, now: int) -> bool:
        """Put a configuration in force that was found good; whether anything differs."""
        changes = self._registry.configure(new.models)
        old, self.in_force = self.in_force, new
        for caller in self._callers:
            caller.tried_at = 0
        if not changes and new.devices == old.devices:
            return False
        self.generation += 1
        self._out.say(INFO, f"configuration {self.generation} is in force: {_text(changes)}")
        self._size_pools(now)
        self._warn_of_emulation(old.devices)
        self._tell_watch()
        return True

    def _size_pools(self, now: int) -> None:
        """Each configured device has its workers, and one that is not configured any more as long as it serves."""
        sizes = pool_sizes(self.in_force.models, self._config.workers, self.scaled)
        self.scaled = {device: size for device, size in self.scaled.items() if device in sizes}
        used = self._registry.view.devices
        leaving = {
            device: size
            for device, size in self._fleet.wanted.items()
            if device not in sizes and device in used
        }
        self._fleet.configure(sizes | leaving, self.in_force.devices, now)

    def _warn_of_emulation(self, before: dict[str, DeviceConfig]) -> None:
        for device in self._fleet.wanted:
            stand_in = self.in_force.devices.get(device, DeviceConfig()).emulate_on
            if stand_in and before.get(device, DeviceConfig()).emulate_on != stand_in:
                self._out.say(
                    WARNING,
                    f"DEVICE {device} IS EMULATED ON {stand_in}: results and speed are not {device}'s; "
                    "this is for development only",
                )

    def _to_storekeeper(self, message: Watch | Keep | ReadConfig) -> None:
        if self._peers.storekeeper is not None:
            self._out.send(self._peers.storekeeper, message)

    def _tell_watch(self) -> None:
        """At once, so that the storekeeper sees every base path that a model had."""
        watched = (Watched(one.name, one.base_path, one.version_policy) for one in self.in_force.models)
        watch = Watch(tuple(watched))
        if self._peers.storekeeper is not None and watch != self._watch:
            self._watch = watch
            self._to_storekeeper(watch)

    def _tell_keep(self) -> None:
        keep = Keep(self._registry.view.paths)
        if self._peers.storekeeper is not None and keep != self._keep:
            self._keep = keep
            self._to_storekeeper(keep)

    def _refuse(self, caller: _Caller, code: Code, text: str) -> None:
        self._answered(caller, Reconfigured(caller.id, error=WireError(code, text)))

    def _answered(self, caller: _Caller, answer: Reconfigured) -> None:
        self._out.to_frontend(caller.frontend, answer)
        self._callers = [one for one in self._callers if one is not caller]

    def _answer(self, generation: int, now: int) -> None:
        """Answer those whose configuration was tried, once every frontend knows the catalogue that shows it."""
        for caller in list(self._callers):
            if caller.read:
                if now >= caller.deadline:
                    self._refuse(
                        caller, Code.DEADLINE_EXCEEDED, "the configuration file was not read in time"
                    )
                continue
            view = self._registry.view
            if view.is_tried:
                caller.tried_at = caller.tried_at or now
                known = self._peers.acknowledged(generation) >= generation
                done = known or now - caller.tried_at >= ACKNOWLEDGE_TIMEOUT_NS
            else:
                done = now >= caller.deadline
            if done:
                slow = tuple(f"model {name}: is still being loaded" for name in view.untried)
                answer = Reconfigured(caller.id, caller.changed, failures=view.failures + slow)
                self._answered(caller, answer)


def _text(changes: Changes) -> str:
    """What changes, in one line."""
    parts = [
        f"{verb} {', '.join(names)}"
        for verb, names in (
            ("adds", changes.added),
            ("removes", changes.removed),
            ("loads anew", changes.reloaded),
            ("changes", changes.adjusted),
        )
        if names
    ]
    return "; ".join(parts) or "devices are run otherwise"
