"""What is served, as the broker last said; and the choice of a version. Pure."""

from common.errors import NotFoundError, UnavailableError, servable_not_found
from common.messages import Catalogue, VersionId, VersionStatus
from common.states import VersionState
from frontends.interface import Selector, Served


class CatalogueView:
    """A catalogue, indexed. Replaced whole by the next one."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.generation = catalogue.generation
        self.ready = catalogue.ready
        self._versions = {
            model.name: {status.version: status for status in model.versions} for model in catalogue.models
        }
        self._chosen: dict[tuple[str, int], Served] = {}
        self._default: dict[str, Served] = {}
        for name, versions in self._versions.items():
            for number, status in versions.items():
                if status.servable and status.signature is not None:
                    served = Served(VersionId(name, number), self.generation, status.signature)
                    self._chosen[name, number] = served
                    self._default[name] = served

    def choose(self, selector: Selector) -> Served:
        """The version that serves a request. Raises NotFoundError, UnavailableError."""
        if selector.version is None and selector.label is None:
            served = self._default.get(selector.model)
        else:
            served = self._chosen.get((selector.model, selector.version or 0))
        return served or self._refuse(selector)

    def statuses(self, selector: Selector) -> tuple[VersionStatus, ...]:
        """One version, or all of a model, ascending. Raises NotFoundError."""
        versions = self._versions.get(selector.model)
        if selector.label is not None:
            raise _no_such_label(selector)
        if not versions or (selector.version is not None and selector.version not in versions):
            raise servable_not_found(selector.model, selector.version or 0)
        if selector.version is not None:
            return (versions[selector.version],)
        return tuple(versions.values())

    def _refuse(self, selector: Selector) -> Served:
        """Say why there is nothing to choose."""
        candidates = self.statuses(selector)
        alive = [status for status in candidates if status.state != VersionState.END]
        if not alive:
            raise servable_not_found(selector.model, selector.version or 0)
        states = ", ".join(f"{status.version} is {VersionState(status.state).name}" for status in alive)
        raise UnavailableError(
            f"Model {selector.model} has no version to serve the request: version {states}"
        )


def _no_such_label(selector: Selector) -> NotFoundError:
    return NotFoundError(f"Unrecognized servable version label: {selector.label} of model {selector.model}")
