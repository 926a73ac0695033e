"""What is served, as the broker last said; and the choice of a version. Pure."""

from collections.abc import Mapping

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
        self._labels = {model.name: model.labels for model in catalogue.models}
        self._chosen: dict[tuple[str, int], Served] = {}
        self._default: dict[str, Served] = {}
        for name, versions in self._versions.items():
            for number, status in versions.items():
                if status.servable and status.signature is not None:
                    id_ = VersionId(name, number, status.revision)
                    served = Served(id_, self.generation, status.signature)
                    self._chosen[name, number] = served
                    self._default[name] = served

    def choose(self, selector: Selector) -> Served:
        """The version that serves a request. Raises NotFoundError, UnavailableError."""
        if selector.version is None and selector.label is None:
            served = self._default.get(selector.model)
        else:
            served = self._chosen.get((selector.model, self._number(selector) or 0))
        return served or self._refuse(selector)

    def statuses(self, selector: Selector) -> tuple[VersionStatus, ...]:
        """One version, or all of a model, ascending. Raises NotFoundError."""
        versions = self._versions.get(selector.model)
        number = self._number(selector)
        if not versions or (number is not None and number not in versions):
            raise servable_not_found(selector.model, number or 0)
        return tuple(versions.values()) if number is None else (versions[number],)

    def all_statuses(self) -> Mapping[str, tuple[VersionStatus, ...]]:
        """Of every model, ascending; empty for one of which no version was ever seen."""
        return {name: tuple(versions.values()) for name, versions in self._versions.items()}

    def _number(self, selector: Selector) -> int | None:
        """The version that is asked for; None: the default one. Raises NotFoundError."""
        if selector.label is None:
            return selector.version
        labels = self._labels.get(selector.model)
        if labels is None:
            raise servable_not_found(selector.model, 0)
        if selector.label not in labels:
            raise NotFoundError(
                f"Unrecognized servable version label: {selector.label} of model {selector.model}"
            )
        return labels[selector.label]

    def _refuse(self, selector: Selector) -> Served:
        """Say why there is nothing to choose."""
        candidates = self.statuses(selector)
        alive = [status for status in candidates if status.state != VersionState.END]
        if not alive:
            raise servable_not_found(selector.model, self._number(selector) or 0)
        states = ", ".join(f"{status.version} is {VersionState(status.state).name}" for status in alive)
        raise UnavailableError(
            f"Model {selector.model} has no version to serve the request: version {states}"
        )
