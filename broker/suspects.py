"""Requests that are to run alone, and the workers that are kept free for them. Pure.

A worker has died while it ran a request: that request is suspect until it has run in a worker that has nothing else.
The worker is reserved at once, and gets the request when it has become empty.
"""

from collections import deque
from collections.abc import Collection

from broker.work import Request, Worker


class Suspects:
    """Those that wait to run alone, in the order of the deaths."""

    def __init__(self) -> None:
        self.waiting: deque[Request] = deque()

    def add(self, request: Request) -> None:
        """It is to run alone next."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """It does not wait any more."""
        self.waiting.remove(request)

    def due(self, workers: Collection[Worker]) -> list[tuple[Request, Worker]]:
        """Those whose workers are empty now; they wait no longer. Workers are reserved for the others."""
        found: list[tuple[Request, Worker]] = []
        reserved = {id(worker.alone): worker for worker in workers if worker.alone is not None}
        for request in list(self.waiting):
            worker = reserved.get(id(request)) or _reserve(request, workers)
            if worker is not None and not worker.in_hand:
                self.waiting.remove(request)
                found.append((request, worker))
        return found


def _reserve(request: Request, workers: Collection[Worker]) -> Worker | None:
    able = [
        worker
        for worker in workers
        if request.version in worker.lanes and worker.alone is None and not worker.draining
    ]
    if not able:
        return None
    worker = min(able, key=lambda one: one.in_hand)
    worker.alone = request
    return worker
