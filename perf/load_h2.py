"""Load by nghttp2's h2load: HTTP/2 for gRPC, HTTP/1.1 for REST; one thread, one connection and one request a client.

h2load knows nothing of gRPC's status, which follows the body or, where a request is refused, takes its place, behind
HTTP status 200. So the bytes of bodies are compared with what right answers amount to, and what differs counts as
errors: all of them where refusals have no body, a lower bound otherwise.
"""

import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perf.stats import Samples
from perf.target import HOST, LoadFailedError, Target

PROGRAM = "h2load"
HTTP_OK = range(200, 300)

_REQUESTS = re.compile(r"^requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded", re.MULTILINE)
_TRAFFIC = re.compile(r"^traffic: .* \((\d+)\) data$", re.MULTILINE)


@dataclass(frozen=True)
class Totals:
    """What h2load prints at its end."""

    total: int
    succeeded: int
    """Answered with a 2xx or 3xx status."""
    data_bytes: int
    """Of all bodies received."""


def available() -> bool:
    """Whether it is installed (Debian: nghttp2-client)."""
    return shutil.which(PROGRAM) is not None


def version() -> str:
    """For the report."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def parse_totals(text: str) -> Totals:
    """Raises LoadFailedError where the text is not that of a finished run."""
    requests, traffic = _REQUESTS.search(text), _TRAFFIC.search(text)
    if requests is None or traffic is None:
        raise LoadFailedError(f"h2load did not finish: {text.strip()[-500:]}")
    return Totals(int(requests[1]), int(requests[2]), int(traffic[1]))


def hidden_errors(totals: Totals, answer_bytes: int) -> int:
    """How many of the succeeded cannot have been right answers, judged by the bytes of the bodies."""
    if not answer_bytes:
        return 0
    difference = abs(totals.succeeded * answer_bytes - totals.data_bytes)
    return min(totals.succeeded, math.ceil(difference / answer_bytes))


def parse_log(text: str, totals: Totals, answer_bytes: int) -> Samples:
    """The log: a line a request, of start [µs since 1970], status (-1 where it failed) and duration [µs], by tabs.

    Requests that were never started, because their connection was refused, have no line; they become failures.
    """
    rows = np.array([line.split("\t") for line in text.splitlines()], dtype=np.int64).reshape(-1, 3)
    missing = max(0, totals.total - len(rows))
    starts = np.concatenate([rows[:, 0], np.full(missing, rows[0, 0] if len(rows) else 0)])
    latencies = np.concatenate([rows[:, 2], np.zeros(missing, np.int64)])
    ok = np.concatenate([np.isin(rows[:, 1], HTTP_OK), np.zeros(missing, np.bool_)])
    return Samples(starts / 1e6, latencies / 1e6, ok, hidden_errors(totals, answer_bytes))


def command(target: Target, clients: int, requests: int, log: Path) -> list[str]:
    """The command line."""
    kind = (
        ["--header", "content-type: application/grpc", "--header", "te: trailers"]
        if target.kind == "grpc"
        else ["--h1", "--header", "content-type: application/json"]
    )
    return [
        *(PROGRAM, "--threads", "1", "--clients", str(clients), "--requests", str(requests)),
        *("--max-concurrent-streams", "1", "--data", str(target.body), f"--log-file={log}"),
        *kind,
        f"http://{HOST}:{target.port}{target.path}",
    ]


def run(target: Target, clients: int, requests: int, timeout_s: float, directory: Path) -> Samples:
    """Send `requests` by `clients`; files go to `directory`. Raises LoadFailedError."""
    log = directory / "h2load.log"
    log.unlink(missing_ok=True)  # h2load appends
    line = command(target, clients, requests, log)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadFailedError(f"h2load did not end within {timeout_s:.0f} s") from error
    totals = parse_totals(done.stdout + done.stderr)
    return parse_log(log.read_text(), totals, target.answer_bytes)
