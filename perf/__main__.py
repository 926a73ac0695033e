"""`python -m perf`: measure the server beside its limits and bars; print a table, write it as JSON and as a picture."""

import argparse
import contextlib
import importlib.metadata
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from common import build
from common.process import available_cores
from perf import generate, plot, report
from perf.bench import Bench
from perf.plan import QUICK, Line, Settings
from perf.results import Outcome, Results, outcomes
from perf.scenarios import lines_of, names, scenarios_of
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


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m perf",
        description="Measure the server beside its limits. Exits with 1 where something could not be measured; bars "
        "that are not reached are printed and change nothing.",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.rounds} round of {QUICK.seconds:g} s")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of {', '.join(names())}")
    parser.add_argument("--seconds", type=_positive, help=f"aim for each measurement ({Settings.seconds:g})")
    parser.add_argument("--rounds", type=_count, help=f"medians are over so many ({Settings.rounds})")
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
    return settings


def machine(generator: generate.GeneratorName) -> dict[str, str]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": cpu or platform.machine(),
        "cores": str(len(available_cores())),
        "kernel": platform.release(),
        "python": f"{platform.python_version()}, the server's hot modules {build.form()}",
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "load generator": generate.describe(generator),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


@contextlib.contextmanager
def _progress(total: int) -> Iterator[tqdm]:  # type: ignore[type-arg]  # generic in its stubs alone
    """A bar on a terminal, nothing elsewhere."""
    with tqdm(total=total, disable=None, unit="", leave=False) as shown:
        yield shown


def measure(lines: Sequence[Line], settings: Settings, generator: generate.GeneratorName) -> Results:
    """Build the models, then run one scenario after the other."""
    results = Results()
    scenarios = scenarios_of(lines)
    wanted = frozenset(line.name for line in lines)
    models = dict.fromkeys(name for scenario in scenarios for name in scenario.models)
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        directory = Path(name)
        built = directory / "models"
        if models:
            line = [sys.executable, "-m", "perf.models", str(built), *models]
            subprocess.run(line, check=True, timeout=BUILD_TIMEOUT_S, cwd=ROOT)
        bench = Bench(generator, settings, built, directory, results, lambda _: None, wanted=wanted)
        with _progress(sum(scenario.steps(bench) for scenario in scenarios)) as shown:

            def tick(what: str) -> None:
                shown.set_description_str(what)
                shown.update()

            for scenario in scenarios:
                try:
                    scenario.run(replace(bench, tick=tick))
                except Exception as error:  # noqa: BLE001 - it is reported, and costs no other scenario its figures
                    results.problems.append(f"{scenario.name}: {type(error).__name__}: {error}")
    return results


def document(where: dict[str, str], settings: Settings, found: Sequence[Outcome], results: Results) -> bytes:
    """The JSON: the lines with the values of all rounds, which `perf.compare` reads, and every measurement."""
    content: dict[str, Any] = {
        "machine": where,
        "settings": settings,
        "lines": [{**msgspec.to_builtins(each), "verdict": each.verdict} for each in found],
        "problems": results.problems,
        "records": results.records,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def main() -> int:
    """The process. Returns its exit code."""
    arguments = parse(sys.argv[1:])
    # Unwinds, so that servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    lines, settings = lines_of(arguments.only), settings_of(arguments)
    generator = arguments.generator or generate.choose()
    results = measure(lines, settings, generator)
    found = outcomes(lines, results)
    where = machine(generator)
    note = f"{where['cpu']}, {where['cores']} cores; load by {where['load generator']} on the same cores"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "perf.json").write_bytes(document(where, settings, found, results))
    print(report.text_of(found, report.aggregate(results.records), settings, note))
    plot.draw(found, note, arguments.output / "perf.png")
    for problem in results.problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if results.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
