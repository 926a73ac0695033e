"""The status document: what `ie_serving status` shows, as JSON."""

from dataclasses import dataclass
from typing import Any

import msgspec

from broker.fleet import Fleet, Post
from broker.models import LoadState, Registry, Version
from broker.peers import Peers
from broker.scheduler import Scheduler
from common.states import VersionState


@dataclass(frozen=True, slots=True)
class Whole:
    """The broker's parts, to be read."""

    epoch: int
    scheduler: Scheduler
    registry: Registry
    fleet: Fleet
    peers: Peers


def status_document(core: Whole) -> str:
    """JSON text; the fields are described in docs/operations.md."""
    document = {
        "ready": core.registry.is_ready(),
        "epoch": core.epoch,
        "config_error": "",
        "models": [
            {
                "name": name,
                "error": model.listing_error,
                "versions": [_version(core, version) for _, version in sorted(model.versions.items())],
            }
            for name, model in core.registry.models.items()
        ],
        "pools": [
            {"device": device, "wanted": wanted, "serving": _serving(core, device)}
            for device, wanted in core.fleet.wanted.items()
        ],
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


def _version(core: Whole, version: Version) -> dict[str, Any]:
    return {
        "version": version.id.version,
        "state": VersionState(version.state).name,
        "error": version.reason,
        "workers": [slot for slot, state in version.loads.items() if state is LoadState.LOADED],
        "queued": core.scheduler.queued(version.id),
        "running": core.scheduler.in_hand(version.id),
    }


def _serving(core: Whole, device: str) -> int:
    """Workers of the present size of the pool that serve everything of their device."""
    wanted = core.fleet.wanted[device]
    return sum(
        post.slot.device == device
        and not post.slot.trial
        and not post.retiring
        and post.slot.of == wanted
        and core.registry.serves_all(post.slot.name)
        for post in core.fleet.posts.values()
    )


def _worker(core: Whole, post: Post) -> dict[str, Any]:
    slot = post.slot.name
    loaded = [
        [version.id.model, version.id.version]
        for model in core.registry.models.values()
        for version in model.versions.values()
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
    return "serving" if core.registry.serves_all(post.slot.name) else "loading"
