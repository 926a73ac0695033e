"""The frontends' segments as this worker maps them.

    unknown ──first request──▶ FETCHING (a thread asks the owner) ──▶ MAPPED ──request done / ArenaGone──▶ unmapped
                                   └──owner gone, or silent for 2 s──▶ unknown, the requests are failed

Segment 0 is a frontend's arena and stays until ArenaGone; every other one serves a single request. A mapping cannot be
closed while a view into it lives: Python refuses, and rightly so. Such a one is kept and tried again.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.arena import ForeignSegmentError, Segment
from common.descriptors import SegmentUnavailableError, fetch_descriptor, socket_path
from workers.engine import MemoryId

ARENA = 0
_FETCH_TIMEOUT_S = 2.0
_log = logging.getLogger("workers.memory")


class Fetched(NamedTuple):
    """What became of the question for a segment; `reason` says why there is none."""

    memory: MemoryId
    segment: Segment | None
    reason: str = ""


class Memory:
    """Which segments are mapped. `report` is called by other threads."""

    def __init__(self, run_dir: Path, report: Callable[[Fetched], None]) -> None:
        self._run_dir = run_dir
        self._report = report
        self._mapped: dict[MemoryId, Segment] = {}
        self._fetching: set[MemoryId] = set()
        self._stuck: list[tuple[MemoryId, Segment]] = []

    def get(self, memory: MemoryId) -> Segment | None:
        """The segment, if it is mapped."""
        return self._mapped.get(memory)

    def maps(self, frontend: str, segment: int) -> bool:
        """Whether a segment is mapped. For every request: a plain tuple is to a dict what a MemoryId is."""
        return (frontend, segment) in self._mapped

    def frontends(self) -> tuple[str, ...]:
        """Whose memory is mapped, or about to be."""
        known = {*self._mapped, *self._fetching, *(memory for memory, _ in self._stuck)}
        return tuple(sorted({memory.frontend for memory in known}))

    def fetch(self, memory: MemoryId) -> None:
        """Have a thread ask the owner, unless one does. The owner may be slow, and the loop must not be."""
        if memory in self._fetching:
            return
        self._fetching.add(memory)
        threading.Thread(target=self._fetch, args=(memory,), name="fetch", daemon=True).start()

    def fetched(self, answer: Fetched) -> bool:
        """Take the answer over; whether it is still wanted."""
        wanted = answer.memory in self._fetching
        self._fetching.discard(answer.memory)
        if answer.segment is None:
            return wanted
        if wanted:
            self._mapped[answer.memory] = answer.segment
        else:
            answer.segment.close()
        return wanted

    def of_frontend(self, frontend: str) -> list[MemoryId]:
        """The mapped segments of a frontend."""
        return [memory for memory in self._mapped if memory.frontend == frontend]

    def forget(self, memory: MemoryId) -> None:
        """Unmap a segment that nothing uses any more; an answer still to come will not be mapped."""
        self._fetching.discard(memory)
        segment = self._mapped.pop(memory, None)
        if segment is not None and not _close(segment):
            _log.warning("segment %d of %s is still in use and stays mapped", memory.segment, memory.frontend)
            self._stuck.append((memory, segment))

    def forget_fetches(self, frontend: str) -> None:
        """Answers about this frontend's segments are not wanted any more."""
        self._fetching = {memory for memory in self._fetching if memory.frontend != frontend}

    @property
    def is_restless(self) -> bool:
        """Whether `retry` has something to do."""
        return bool(self._stuck)

    def retry(self) -> None:
        """Try once more to unmap what could not be unmapped."""
        if self._stuck:
            self._stuck = [(memory, segment) for memory, segment in self._stuck if not _close(segment)]

    def _fetch(self, memory: MemoryId) -> None:
        try:
            path = socket_path(self._run_dir, memory.frontend)
            segment = Segment.attach(fetch_descriptor(path, memory.segment, _FETCH_TIMEOUT_S))
        except (SegmentUnavailableError, ForeignSegmentError) as error:
            self._report(Fetched(memory, None, str(error)))
        except Exception as error:  # noqa: BLE001 - the requests that wait must be answered
            _log.exception("segment %d of %s", memory.segment, memory.frontend)
            self._report(Fetched(memory, None, type(error).__name__))
        else:
            self._report(Fetched(memory, segment))


def _close(segment: Segment) -> bool:
    try:
        segment.close()
    except BufferError:
        return False
    return True
