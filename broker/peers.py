"""Who is linked to the broker now. Pure bookkeeping for the core."""

from dataclasses import dataclass

from common.messages import ProcessId


@dataclass(slots=True, eq=False)
class Frontend:
    """A frontend that has said Hello."""

    name: str
    identity: bytes
    process: ProcessId
    kind: str
    listening: bool
    acknowledged: int = 0
    """Generation of the oldest catalogue by which it may still choose versions."""
    leaving: bool = False
    """It has said that it is about to end."""


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that has said Hello."""

    slot: str
    identity: bytes
    process: ProcessId
    arenas: frozenset[str] = frozenset()
    kill_sent: bool = False


class Peers:
    """Frontends by name, workers by slot, and both by the identity of their present link."""

    def __init__(self) -> None:
        self.frontends: dict[str, Frontend] = {}
        self.workers: dict[str, Worker] = {}
        self.frontend_by_identity: dict[bytes, Frontend] = {}
        self.worker_by_identity: dict[bytes, Worker] = {}
        self.storekeeper: bytes | None = None
        """Identity of the storekeeper's present link."""
        self.refused: dict[str, int] = {}
        """Requests that frontends refused by themselves, by the name of the error code."""
        self.unknown_done = 0
        """Answers of workers to requests that are gone; normal after cancellations and restarts."""

    def add_frontend(self, frontend: Frontend) -> None:
        """A new frontend, or a new link of a known one."""
        old = self.frontends.get(frontend.name)
        if old is not None:
            self.frontend_by_identity.pop(old.identity, None)
            frontend.acknowledged = old.acknowledged
        self.frontends[frontend.name] = frontend
        self.frontend_by_identity[frontend.identity] = frontend

    def add_worker(self, worker: Worker) -> None:
        """A new worker, or a new link of a known one."""
        old = self.workers.get(worker.slot)
        if old is not None:
            self.worker_by_identity.pop(old.identity, None)
        self.workers[worker.slot] = worker
        self.worker_by_identity[worker.identity] = worker

    def remove_frontend(self, process: ProcessId) -> Frontend | None:
        """The frontend whose process has ended."""
        for frontend in self.frontends.values():
            if frontend.process == process:
                del self.frontends[frontend.name]
                self.frontend_by_identity.pop(frontend.identity, None)
                return frontend
        return None

    def remove_worker(self, process: ProcessId) -> Worker | None:
        """The worker whose process has ended."""
        for worker in self.workers.values():
            if worker.process == process:
                del self.workers[worker.slot]
                self.worker_by_identity.pop(worker.identity, None)
                return worker
        return None

    def all_leaving(self) -> bool:
        """Whether the server is being stopped: each frontend has said that it ends, or has ended."""
        return all(frontend.leaving for frontend in self.frontends.values())

    def acknowledged(self, current: int) -> int:
        """The oldest catalogue that any frontend may still choose by; `current` when there is no frontend."""
        return min((frontend.acknowledged for frontend in self.frontends.values()), default=current)
