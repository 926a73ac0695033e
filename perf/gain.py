"""Scenario: what `batching_parameters` gain for a model of dense layers (`perf.dense`): with them ÷ without them."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from perf.bench import Bench, Load, run_load
from perf.calls import Sample, WrongAnswerError, grpc_target, load_sample
from perf.plan import Setup
from perf.server import Server, StartFailedError, config_options
from perf.target import ROOT

LINE = "batching"
MODEL = "dense-layers"
"""perf.dense.NAME; not imported, because it brings OpenVINO into the process that measures."""
CLIENTS = 16
VARIANTS: dict[str, dict[str, Any]] = {
    "without": {},
    "batching": {"batching_parameters": {"max_batch_size": 16}},
}
NO_MODEL = "there is no perf.dense to build the model"
_BUILDER = "perf.dense"
_BUILD_S = 120


def run(bench: Bench) -> None:
    """Measure; what goes wrong is written down."""
    if importlib.util.find_spec(_BUILDER) is None:
        bench.results.absent[LINE] = NO_MODEL
        return
    models = bench.directory / LINE
    subprocess.run([sys.executable, "-m", _BUILDER, str(models)], cwd=ROOT, timeout=_BUILD_S, check=True)
    sample = load_sample(models, MODEL)
    try:
        with contextlib.ExitStack() as stack:
            servers = {
                what: stack.enter_context(
                    Server(_options(models, what, extra), bench.directory, bench.program)
                )
                for what, extra in VARIANTS.items()
            }
            loads = [_load(bench, what, server, sample) for what, server in servers.items()]
            for number in range(bench.settings.rounds):
                for load in loads:
                    run_load(bench, load, number)
            for server in servers.values():
                server.wait_grpc(sample)
    except (StartFailedError, WrongAnswerError) as error:
        bench.results.problems.append(f"{LINE}: {error}")


def steps(bench: Bench) -> int:
    """How many measurements it takes."""
    return bench.settings.rounds * len(VARIANTS) if importlib.util.find_spec(_BUILDER) else 0


def _options(models: Path, what: str, extra: dict[str, Any]) -> list[str]:
    entry = {"name": MODEL, "base_path": str(models / MODEL), **extra}
    path = models / f"{what}.json"
    path.write_bytes(msgspec.json.encode({"model_config_list": [{"config": entry}]}))
    return config_options(path, Setup())


def _load(bench: Bench, what: str, server: Server, sample: Sample) -> Load:
    length = server.wait_grpc(sample)
    target = grpc_target(server.grpc_port, sample, bench.directory, length)
    return Load(MODEL, what, target, CLIENTS, server.pid, server.setup())
