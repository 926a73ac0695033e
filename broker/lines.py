"""The lines of all versions that the scheduler has to do with: which are open, and which workers can run them. Pure.

A line is there as long as a worker can run its version or a request of it is not answered.
"""

from collections.abc import Container, Mapping

from broker.work import Lane, Line, Worker
from common.messages import VersionId


class Lines:
    """Lines by their versions."""

    def __init__(self, workers: Mapping[str, Worker], gathered: Container[VersionId]) -> None:
        """`workers`: all of the scheduler's; `gathered`: the versions whose requests are gathered into batches."""
        self.known: dict[VersionId, Line] = {}
        self.open: dict[VersionId, Line] = {}
        """Those of which a request is not answered."""
        self._workers = workers
        self._gathered = gathered

    def of(self, version: VersionId) -> Line:
        """The version's, which need not have been there."""
        line = self.known.get(version)
        if line is None:
            line = self.known[version] = Line(version, is_gathered=version in self._gathered)
        return line

    def opened(self, version: VersionId) -> Line:
        """One more request of the version is not answered: its line."""
        line = self.known.get(version)
        if line is None:
            line = self.of(version)
        line.open += 1
        if line.open == 1:
            self.open[line.version] = line
        return line

    def closed(self, line: Line) -> None:
        """One request of it is answered."""
        line.open -= 1
        if not line.open:
            del self.open[line.version]
            if not line.lanes:
                self.prune(line)

    def prune(self, line: Line) -> None:
        """Forget it if nothing is left of it."""
        if not line.open and not line.lanes and self.known.get(line.version) is line:
            del self.known[line.version]

    def add_lane(self, worker: Worker, line: Line, nireq: int) -> Lane:
        """A worker can run the version."""
        lane = worker.lanes[line.version] = Lane(worker, line, nireq)
        of_workers = [one.lanes.get(line.version) for one in self._workers.values()]
        line.lanes = [one for one in of_workers if one is not None]
        return lane

    def remove_lane(self, worker: Worker, version: VersionId) -> Line | None:
        """A worker cannot run the version any more: its line, which is not pruned yet."""
        lane = worker.lanes.pop(version, None)
        if lane is None:
            return self.known.get(version)
        lane.line.lanes.remove(lane)
        return lane.line

    def remove_lanes(self, worker: Worker) -> None:
        """A worker is dead."""
        for lane in worker.lanes.values():
            lane.line.lanes.remove(lane)
            self.prune(lane.line)
        worker.lanes.clear()
