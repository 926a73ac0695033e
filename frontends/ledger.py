"""What this frontend has lent to the broker: every request from its Submit until its block is free again. Pure.

    add ─▶ OPEN ──completed, stale──▶ (gone, block free)
            │ abandon (deadline, client gone)
            ▼
        ABANDONED ──released or completed──▶ (gone, block free)

A broker's death changes nothing here: the next Hello lists what is open and what is abandoned. Only a request that was
submitted within a second of three broker deaths is given up, because it may be what kills them.
"""

from typing import Generic, TypeVar

from common.messages import Submit

SUSPICIOUS_NS = 1_000_000_000
"""A broker that dies so soon after a request was submitted to it may have died of it."""

MAX_BROKER_DEATHS = 3


class Entry:
    """A request whose block is lent."""

    __slots__ = ("abandoned", "broker_deaths", "sent_at", "submit")

    def __init__(self, submit: Submit) -> None:
        self.submit = submit
        self.sent_at = 0
        """When it was last handed to a broker; 0 before that."""
        self.abandoned = False
        self.broker_deaths = 0


AnyEntry = TypeVar("AnyEntry", bound=Entry)


class Ledger(Generic[AnyEntry]):
    """All entries, by request id."""

    def __init__(self) -> None:
        self.entries: dict[int, AnyEntry] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self.entries)

    def next_id(self) -> int:
        """A number that was never used before."""
        self._last_id += 1
        return self._last_id

    def add(self, entry: AnyEntry) -> None:
        """A request that is to be submitted."""
        self.entries[entry.submit.id] = entry

    def sent(self, id_: int, now: int) -> bool:
        """The request is handed to the broker of the present link; False, and it must not be, when it is gone."""
        entry = self.entries.get(id_)
        if entry is None:
            return False
        entry.sent_at = now
        return True

    def close(self, id_: int) -> AnyEntry | None:
        """Completed, Released or Stale has come: the block is free. None for a request that is gone."""
        return self.entries.pop(id_, None)

    def abandon(self, id_: int) -> bool:
        """Nobody waits for the answer. Whether the block is free at once, because no broker has ever seen it."""
        entry = self.entries.get(id_)
        if entry is None:
            return False
        if not entry.sent_at:
            del self.entries[id_]
            return True
        entry.abandoned = True
        return False

    def broker_died(self, now: int) -> list[int]:
        """Requests that have seen too many brokers die: to be failed, their blocks stay lent until released."""
        given_up = []
        for id_, entry in self.entries.items():
            if entry.sent_at and now - entry.sent_at <= SUSPICIOUS_NS:
                entry.broker_deaths += 1
                if entry.broker_deaths >= MAX_BROKER_DEATHS and not entry.abandoned:
                    entry.abandoned = True
                    given_up.append(id_)
        return given_up

    def greet(self, now: int) -> tuple[tuple[Submit, ...], tuple[int, ...]]:
        """For a Hello: requests that a broker has seen and that are still wanted, and abandoned ones."""
        wanted = [entry for entry in self.entries.values() if entry.sent_at and not entry.abandoned]
        for entry in wanted:
            entry.sent_at = now
        return tuple(entry.submit for entry in wanted), self.abandoned()

    def abandoned(self) -> tuple[int, ...]:
        """Requests that nobody waits for and whose blocks are lent still."""
        return tuple(id_ for id_, entry in self.entries.items() if entry.abandoned)

    def unsent(self) -> list[Submit]:
        """Requests that no broker has seen yet, oldest first."""
        return [entry.submit for entry in self.entries.values() if not entry.sent_at]
