"""The status document: what `ie_serving status` shows, as JSON."""

from dataclasses import dataclass
from typing import Any

import msgspec

from broker.fleet import Fleet, Post
from broker.models import LoadState, Model, Version, all_versions
from broker.peers import Peers
from broker.reconfiguration import Reconfiguration
from broker.registry import Registry
from broker.scheduler import Scheduler
from common.config import DeviceConfig
from common.states import VersionState


@dataclass(frozen=True, slots=True)
class Whole:
    """The broker's parts, to be read."""

    epoch: int
    scheduler: Scheduler
    registry: Registry
    fleet: Fleet
    peers: Peers
    reconfiguration: Reconfiguration


def status_document(core: Whole) -> str:
    """JSON text; the fields are described in docs/operations.md."""
    document = {
        "ready": core.registry.view.is_ready,
        "epoch": core.epoch,
        "configuration": core.reconfiguration.generation,
        "config_error": core.reconfiguration.error,
        "models": [_model(core, model) for model in core.registry.models.values()],
        "pools": [_pool(core, device, wanted) for device, wanted in core.fleet.wanted.items()],
        "workers": [_worker(core, post) for post in core.fleet.posts.values()],
        "frontends": [
            {
                "name": frontend.name,
                "kind": frontend.kind,
                "pid": frontend.process.pid,
                "listening": frontend.listening,
                "requests": len(core.scheduler.of_frontend(frontend.name)),
            }
            for frontend in core.peers.frontends.values()
        ],
        "queued": core.scheduler.queued(),
        "refused": dict(core.peers.refused),
    }
    return msgspec.json.encode(document).decode()


def _model(core: Whole, model: Model) -> dict[str, Any]:
    shown = model.shown()
    return {
        "name": model.name,
        "base_path": model.config.base_path,
        "device": model.config.target_device,
        "error": model.listing_error if model.listed else "",
        "leaving": model.removed,
        "labels": {label: number for label, number in model.config.labels.items() if number in shown},
        "versions": [_version(core, model, version) for version in shown.values()],
    }


def _version(core: Whole, model: Model, version: Version) -> dict[str, Any]:
    revisions = [one for one in model.versions.values() if one.id.version == version.id.version]
    return {
        "version": version.id.version,
        "state": VersionState(version.state).name,
        "error": _error(model, version, revisions),
        "notes": list(dict.fromkeys(note for notes in version.notes.values() for note in notes)),
        "revision": version.id.revision,
        "workers": [slot for slot, state in version.loads.items() if state is LoadState.LOADED],
        "queued": sum(core.scheduler.queued(one.id) for one in revisions),
        "running": sum(core.scheduler.in_hand(one.id) for one in revisions),
    }


def _error(model: Model, shown: Version, revisions: list[Version]) -> str:
    """Of the version that is shown, or of the later one that should take its place and cannot."""
    for version in revisions:
        if version is not shown and version.wanted and version.trouble:
            return f"serves by an earlier configuration, because by the present one: {version.trouble}"
    return shown.trouble if shown.state is not VersionState.END else ""


def _pool(core: Whole, device: str, wanted: int) -> dict[str, Any]:
    """`serving`: workers of the pool as it is to be that serve everything of their device."""
    how = core.fleet.devices.get(device, DeviceConfig())
    return {
        "device": device,
        "wanted": wanted,
        "serving": sum(
            post.slot.device == device
            and not post.slot.trial
            and not post.retiring
            and post.slot.of == wanted
            and core.fleet.is_run_as_wanted(post.slot)
            and post.slot.name in core.registry.view.serving
            for post in core.fleet.posts.values()
        ),
        "python": how.python,
        "emulated_on": how.emulate_on,
    }


def _worker(core: Whole, post: Post) -> dict[str, Any]:
    slot = post.slot.name
    loaded = [
        [version.id.model, version.id.version]
        for version in all_versions(core.registry.models)
        if version.loads.get(slot) is LoadState.LOADED
    ]
    return {
        "slot": slot,
        "device": post.slot.device,
        "pid": post.process.pid if post.process is not None else None,
        "state": _worker_state(core, post),
        "loaded": loaded,
        "in_hand": len(core.scheduler.in_hand_of(slot)),
        "restarts": post.restarts,
    }


def _worker_state(core: Whole, post: Post) -> str:
    if post.retiring:
        return "stopping" if post.drained else "draining"
    if post.process is None:
        return "backoff" if post.deaths else "starting"
    if not post.connected:
        return "starting"
    return "serving" if post.slot.name in core.registry.view.serving else "loading"
