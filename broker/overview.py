"""What the registry's records amount to: statuses, readiness, what the workers serve. Pure.

An overview is of one moment: the registry drops it with every change, and whoever asks next pays for what he asks.
"""

from functools import cached_property

from broker.commands import ServedVersion
from broker.models import Host, LoadState, Model, Version, all_versions
from broker.planning import serving_slots
from common.messages import ModelStatus, VersionStatus
from common.states import VersionState


class Overview:
    """Of all models and connected workers."""

    def __init__(self, models: dict[str, Model], hosts: dict[str, Host]) -> None:
        self._models = models
        self._hosts = hosts

    @cached_property
    def statuses(self) -> tuple[ModelStatus, ...]:
        """The content of a catalogue."""
        return tuple(_model_status(model) for model in self._models.values())

    @cached_property
    def served(self) -> tuple[ServedVersion, ...]:
        """What a successor of this broker must take to be AVAILABLE, or to be UNLOADING."""
        return tuple(
            ServedVersion(
                version.id,
                version.path,
                version.signature,
                version.config,
                tuple(sorted(version.noted)),
                version.state is VersionState.UNLOADING,
            )
            for version in all_versions(self._models)
            if version.state in (VersionState.AVAILABLE, VersionState.UNLOADING)
            and version.signature is not None
        )

    @cached_property
    def is_ready(self) -> bool:
        """Whether something is served, each served version has a live worker, and no model of the start is untried."""
        return (
            bool(self._available)
            and all(serving_slots(version, self._hosts) for version in self._available)
            and not any(
                model.awaited and not model.removed and not model.is_tried()
                for model in self._models.values()
            )
        )

    @cached_property
    def is_tried(self) -> bool:
        """Whether every model was listed, and each wanted version loaded or failed at least once."""
        return all(model.is_tried() for model in self._models.values() if not model.removed)

    @cached_property
    def hopeless(self) -> str:
        """Why nothing can be served, when that is so: no model is servable or waiting to appear. Else empty."""
        reasons = []
        for model in self._models.values():
            failing = [version for version in model.wanted() if version.trouble]
            if model.is_served() or not (model.listing_error or failing):
                return ""
            if model.listing_error:
                reasons.append(f"model {model.name}: {model.listing_error}")
            else:
                reasons.extend(_complaint(version) for version in failing)
        return "; ".join(reasons)

    @cached_property
    def failures(self) -> tuple[str, ...]:
        """Models of which no wanted version is served, as they are configured now, and why."""
        found = []
        for model in self._models.values():
            wanted = list(model.wanted())
            if model.removed or any(version.state is VersionState.AVAILABLE for version in wanted):
                continue
            if model.listing_error:
                found.append(f"model {model.name}: {model.listing_error}")
            found.extend(_complaint(version) for version in wanted if version.trouble)
        return tuple(found)

    @cached_property
    def untried(self) -> tuple[str, ...]:
        """Models that were not listed yet, or have versions that are still being loaded."""
        return tuple(model.name for model in self._models.values() if not (model.removed or model.is_tried()))

    @cached_property
    def serving(self) -> frozenset[str]:
        """Workers that have loaded everything of their device that is AVAILABLE, and at least one version."""
        by_device: dict[str, list[Version]] = {}
        for version in self._available:
            by_device.setdefault(version.device, []).append(version)
        return frozenset(
            slot
            for slot, host in self._hosts.items()
            if host.device in by_device
            and all(one.loads.get(slot) is LoadState.LOADED for one in by_device[host.device])
        )

    @cached_property
    def vital(self) -> frozenset[str]:
        """Devices on which something is served."""
        return frozenset(version.device for version in self._available)

    @cached_property
    def devices(self) -> frozenset[str]:
        """Devices that have versions which have not ended."""
        return frozenset(
            version.device for version in all_versions(self._models) if version.state is not VersionState.END
        )

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Directories of versions that have not ended."""
        return tuple(
            sorted(
                version.path
                for version in all_versions(self._models)
                if version.state is not VersionState.END and version.path
            )
        )

    @cached_property
    def _available(self) -> list[Version]:
        return [one for one in all_versions(self._models) if one.state is VersionState.AVAILABLE]

    @cached_property
    def _quarantined(self) -> list[Version]:
        """Those that are to be loaded: wanted, or serving (or finishing) though something else is wanted."""
        needed = (VersionState.AVAILABLE, VersionState.UNLOADING)
        return [
            one
            for one in all_versions(self._models)
            if one.load_deaths and (one.wanted or one.state in needed)
        ]

    def needs_trial(self, device: str, now: int) -> bool:
        """Whether a version in quarantine waits for a worker that serves nothing, and every worker serves something."""
        if not self.in_quarantine(device):
            return False
        hosts = [slot for slot, host in self._hosts.items() if host.device == device and not host.trial]
        waiting = any(
            now >= version.retry_at and any(slot not in version.loads for slot in hosts)
            for version in self._quarantined
            if version.device == device
        )
        return waiting and bool(hosts) and all(slot in self._loaded_somewhere for slot in hosts)

    def in_quarantine(self, device: str) -> bool:
        """Whether any version of the device that is to be loaded has killed its worker while loading."""
        return any(version.device == device for version in self._quarantined)

    @cached_property
    def _loaded_somewhere(self) -> frozenset[str]:
        """Workers that have anything loaded."""
        return frozenset(
            slot
            for version in all_versions(self._models)
            for slot, state in version.loads.items()
            if state is LoadState.LOADED
        )


def _model_status(model: Model) -> ModelStatus:
    shown = model.shown()
    versions = tuple(
        VersionStatus(
            number,
            int(version.state),
            version.error,
            version.signature,
            version.state is VersionState.AVAILABLE,
            version.id.revision,
        )
        for number, version in shown.items()
    )
    labels = {label: number for label, number in model.config.labels.items() if number in shown}
    return ModelStatus(model.name, versions, labels)


def _complaint(version: Version) -> str:
    return f"model {version.id.model} version {version.id.version}: {version.trouble}"
