"""`ie_serving status`: the broker's status document, as tables, as JSON, or as an exit code."""

from collections.abc import Sequence
from pathlib import Path

from ie_serving.control import ModelStatus, Status, WorkerStatus, ask_status, read_status
from ie_serving.errors import FAILURE, CommandError


def show(run_dir: Path, *, as_json: bool, check: bool) -> int:
    """Print what runs in `run_dir`; the exit code. Raises CommandError."""
    if check:
        return _check(run_dir)
    document = ask_status(run_dir)
    print(document if as_json else render(read_status(document)), flush=True)
    return 0


def _check(run_dir: Path) -> int:
    try:
        return 0 if read_status(ask_status(run_dir)).ready else FAILURE
    except CommandError:
        return FAILURE


def render(status: Status) -> str:
    """The document for people."""
    parts = [f"{'ready' if status.ready else 'not ready'}, {status.queued} requests queued"]
    if status.config_error:
        parts.append(f"configuration: {_one_line(status.config_error)}")
    models = [row for model in status.models for row in _model_rows(model)]
    header = ("MODEL", "VERSION", "STATE", "LABELS", "WORKERS", "QUEUED", "RUNNING", "ERROR")
    parts.append(_without_empty(header, models, "LABELS"))
    notes = [line for model in status.models for line in _notes(model)]
    if notes:
        parts.append("\n".join(notes))
    pools = [(pool.device, pool.wanted, pool.serving, pool.emulated_on) for pool in status.pools]
    parts.append(_without_empty(("DEVICE", "WANTED", "SERVING", "EMULATED ON"), pools, "EMULATED ON"))
    columns = ("WORKER", "DEVICE", "PID", "STATE", "IN HAND", "RESTARTS", "LOADED")
    parts.append(table(columns, [_worker_row(worker) for worker in status.workers]))
    frontends = [
        (frontend.name, frontend.kind, frontend.pid, "yes" if frontend.listening else "no", frontend.requests)
        for frontend in sorted(status.frontends, key=lambda frontend: frontend.name)
    ]
    parts.append(table(("FRONTEND", "KIND", "PID", "LISTENING", "REQUESTS"), frontends))
    return "\n\n".join(parts)


def _model_rows(model: ModelStatus) -> list[tuple[object, ...]]:
    if not model.versions:
        why = "is leaving" if model.leaving else "no version found yet"
        return [(model.name, "-", "-", "", "-", 0, 0, _one_line(model.error) or why)]
    return [
        (
            model.name,
            version.version,
            version.state,
            " ".join(label for label, number in sorted(model.labels.items()) if number == version.version),
            " ".join(version.workers) or "-",
            version.queued,
            version.running,
            _one_line(version.error or model.error),
        )
        for version in model.versions
    ]


def _notes(model: ModelStatus) -> list[str]:
    return [
        f"model {model.name} version {version.version}: {_one_line(note)}"
        for version in model.versions
        for note in version.notes
    ]


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[object]], name: str) -> str:
    """The table, without this column if it says nothing."""
    index = header.index(name)
    if any(row[index] for row in rows):
        return table(header, rows)
    return table(
        [entry for place, entry in enumerate(header) if place != index],
        [[entry for place, entry in enumerate(row) if place != index] for row in rows],
    )


def _worker_row(worker: WorkerStatus) -> tuple[object, ...]:
    loaded = " ".join(f"{model}:{version}" for model, version in worker.loaded)
    pid = worker.pid if worker.pid is not None else "-"
    return (worker.slot, worker.device, pid, worker.state, worker.in_hand, worker.restarts, loaded or "-")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest entry, numbers to the right."""
    texts = [[str(entry) for entry in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[index], int) for row in rows) for index in range(len(header))
    ]

    def line(entries: Sequence[str]) -> str:
        aligned = (
            entry.rjust(width) if right else entry.ljust(width)
            for entry, width, right in zip(entries, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), *map(line, texts)])
