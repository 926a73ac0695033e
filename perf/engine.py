"""The engine limit: OpenVINO's own `benchmark_app`, of this Python's environment, in a process of its own."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perf.stats import Figures

Hint = Literal["throughput", "latency"]

_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_COUNT = re.compile(r"Count:\s+(\d+) iterations")
_MEDIAN = re.compile(r"Median:\s+([\d.]+) (us|ms|s)\b")
_THROUGHPUT = re.compile(r"Throughput:\s+([\d.]+) FPS")
_REQUESTS = re.compile(r"Start inference asynchronously, (\d+) inference requests")
_STREAMS = re.compile(r"NUM_STREAMS: (\d+)")
_THREADS = re.compile(r"INFERENCE_NUM_THREADS: (\d+)")


class EngineFailedError(RuntimeError):
    """benchmark_app said nothing that can be used."""


@dataclass(frozen=True)
class EngineRun:
    """One run and the settings that its hint chose."""

    figures: Figures
    streams: int
    threads: int
    nireq: int

    def text(self) -> str:
        """The short form that stands beside the figure."""
        return f"{self.streams} streams {self.threads}t nireq {self.nireq}"


def parse(text: str) -> EngineRun:
    """What benchmark_app prints. It gives no 99th percentile. Raises EngineFailedError."""
    count, median, throughput = _COUNT.search(text), _MEDIAN.search(text), _THROUGHPUT.search(text)
    if count is None or median is None or throughput is None:
        raise EngineFailedError(f"benchmark_app did not finish: {text.strip()[-500:]}")
    p50 = float(median[1]) * _MILLISECONDS[median[2]]
    figures = Figures(int(count[1]), 0, float(throughput[1]), p50, None)
    return EngineRun(figures, _last(_STREAMS, text), _last(_THREADS, text), _last(_REQUESTS, text))


def _last(pattern: re.Pattern[str], text: str) -> int:
    """What is printed last holds; 1 where nothing is (synchronous runs have one request)."""
    found = pattern.findall(text)
    return int(found[-1]) if found else 1


def run(model: Path, hint: Hint, seconds: float) -> EngineRun:
    """Measure one model (.xml) for about `seconds`, one at least. Raises EngineFailedError."""
    program = Path(sys.executable).parent / "benchmark_app"
    duration = max(1, round(seconds))
    line = [str(program), "-m", str(model), "-d", "CPU", "-hint", hint, "-t", str(duration)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=duration + 120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineFailedError(f"benchmark_app: {error}") from error
    return parse(done.stdout + done.stderr)
