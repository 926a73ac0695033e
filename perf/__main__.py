"""`python -m perf`: measure the server beside its limits; print a table, write it as JSON and as a picture."""

import argparse
import contextlib
import importlib.metadata
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from tqdm import tqdm

from common.process import available_cores
from perf import load, plot, report
from perf.plan import CASES, CLIENTS, QUICK, Case, Settings
from perf.run import Bench, Results, run_case
from perf.target import ROOT

PACKAGES = ("openvino", "grpcio", "uvloop", "falcon", "gunicorn", "pyzmq", "numpy", "protobuf")
BUILD_TIMEOUT_S = 300


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(each) for each in text.split(","))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    names = ",".join(case.model for case in CASES)
    parser = argparse.ArgumentParser(
        prog="python -m perf",
        description="Measure the server beside benchmark_app and a bare echo. Exits with 1 where something could "
        "not be measured; bars that are not reached are printed and change nothing.",
    )
    parser.add_argument("--quick", action="store_true", help="1 s, 1 round, 1 and 16 clients")
    parser.add_argument("--only", default=names, metavar="MODEL,…", help=f"of {names}")
    parser.add_argument("--seconds", type=_positive, help="aim for each measurement (3)")
    parser.add_argument("--rounds", type=_count, help="medians are over so many (3)")
    parser.add_argument("--clients", type=_counts, metavar="N,…", help=f"of {','.join(map(str, CLIENTS))}")
    parser.add_argument("--generator", choices=["h2load", "python"], help="default: h2load where installed")
    parser.add_argument("--output", type=Path, default=Path("perf/results"), metavar="DIR")
    return parser.parse_args(arguments)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Defaults, `--quick`, single options, in this order."""
    settings = QUICK if arguments.quick else Settings()
    if arguments.seconds is not None:
        settings = replace(settings, seconds=arguments.seconds)
    if arguments.rounds is not None:
        settings = replace(settings, rounds=arguments.rounds)
    if arguments.clients is not None:
        settings = replace(settings, clients=arguments.clients)
    return settings


def cases_of(only: str) -> list[Case]:
    """The cases that are asked for. Raises SystemExit on an unknown name."""
    known = {case.model: case for case in CASES}
    names = only.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"unknown model {unknown[0]!r}; known: {', '.join(known)}")
    return [known[name] for name in names]


def machine(generator: load.GeneratorName) -> dict[str, str]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": cpu or platform.machine(),
        "cores": str(len(available_cores())),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "load generator": load.describe(generator),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


@contextlib.contextmanager
def _progress(total: int) -> Iterator[tqdm]:  # type: ignore[type-arg]  # generic in its stubs alone
    """A bar on a terminal, nothing elsewhere."""
    with tqdm(total=total, disable=None, unit="", leave=False) as shown:
        yield shown


def measure(cases: list[Case], settings: Settings, generator: load.GeneratorName) -> Results:
    """Build the models, then measure one after the other."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        directory = Path(name)
        models = directory / "models"
        line = [sys.executable, "-m", "perf.models", str(models), *(case.model for case in cases)]
        subprocess.run(line, check=True, timeout=BUILD_TIMEOUT_S, cwd=ROOT)
        bench = Bench(generator, settings, len(available_cores()), models, directory, results, lambda _: None)
        with _progress(sum(bench.steps(case) for case in cases)) as shown:

            def tick(what: str) -> None:
                shown.set_description_str(what)
                shown.update()

            for case in cases:
                run_case(replace(bench, tick=tick), case)
    return results


def text_of(rows: list[report.Row], verdicts: list[report.Verdict], settings: Settings, note: str) -> str:
    """What is printed."""
    return "\n".join(
        (
            report.table(rows),
            "",
            "Setup: f frontends (gRPC+REST), w workers × t OpenVINO threads, nireq.",
            "CPU milliseconds a request: of the whole server, of its kinds of process, of the load generator.",
            f"Medians over {settings.rounds} rounds of about {settings.seconds:g} s. {note}.",
            "",
            report.bars(verdicts),
        )
    )


def main() -> int:
    """The process. Returns its exit code."""
    arguments = parse(sys.argv[1:])
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # unwinds, so that servers are stopped
    cases, settings = cases_of(arguments.only), settings_of(arguments)
    generator = arguments.generator or load.choose()
    results = measure(cases, settings, generator)
    rows = report.aggregate(results.records)
    verdicts = report.judge(cases, rows)
    where = machine(generator)
    note = f"{where['cpu']}, {where['cores']} cores; load by {where['load generator']} on the same cores"
    arguments.output.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": where,
        "settings": settings,
        "rows": rows,
        "bars": [{**asdict(verdict), "reached": verdict.reached} for verdict in verdicts],
        "problems": results.problems,
        "records": results.records,
    }
    (arguments.output / "perf.json").write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    if rows:
        print(text_of(rows, verdicts, settings, note))
        plot.draw(rows, verdicts, note, arguments.output / "perf.png")
    for problem in results.problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if results.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
