"""Reading h2load."""

from pathlib import Path

import numpy as np
import pytest

from perf.load_h2 import Totals, command, hidden_errors, parse_log, parse_totals
from perf.target import LoadFailedError, Target, frame

FINISHED = """\
starting benchmark...
spawning thread #0: 16 total client(s). 4000 total requests
Application protocol: h2c
progress: 100% done

finished in 1.19s, 3356.31 req/s, 475.00KB/s
requests: 4000 total, 4000 started, 4000 done, 3990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 3990 2xx, 0 3xx, 4 4xx, 6 5xx
traffic: 566.09KB (579681) total, 12.89KB (13200) headers (space savings 95.93%), 332.03KB (340000) data
                     min         max         mean         sd        +/- sd
time for request:      390us     24.96ms      4.71ms      2.60ms    90.50%
"""


def test_totals() -> None:
    assert parse_totals(FINISHED) == Totals(4000, 3990, 340000)


@pytest.mark.parametrize("text", ["", "Could not connect to the host", FINISHED.replace("traffic", "trafic")])
def test_an_unfinished_run_is_refused(text: str) -> None:
    with pytest.raises(LoadFailedError, match="did not finish"):
        parse_totals(text)


@pytest.mark.parametrize(
    ("data_bytes", "answer_bytes", "errors"),
    [
        (8500, 85, 0),
        (8500 - 85, 85, 1),
        (0, 85, 100),
        (8499, 85, 1),
        (8501, 85, 1),
        (10**6, 85, 100),
        (123, 0, 0),  # the length is not known
    ],
)
def test_missing_bytes_are_errors(data_bytes: int, answer_bytes: int, errors: int) -> None:
    assert hidden_errors(Totals(100, 100, data_bytes), answer_bytes) == errors


def test_log_lines_become_samples() -> None:
    log = "1795182433236433\t200\t10247\n1795182433236468\t503\t740\n1795182433236482\t-1\t5\n"
    samples = parse_log(log, Totals(3, 1, 85), 85)
    np.testing.assert_allclose(samples.latencies, [0.010247, 0.00074, 0.000005])
    assert samples.starts[1] - samples.starts[0] == pytest.approx(35e-6, abs=1e-6)
    assert samples.ok.tolist() == [True, False, False]
    assert samples.hidden_errors == 0


def test_requests_without_a_line_are_failures() -> None:
    samples = parse_log("1795182433236433\t200\t10247\n", Totals(4, 1, 85), 85)
    assert samples.ok.tolist() == [True, False, False, False]
    assert parse_log("", Totals(2, 0, 0), 85).ok.tolist() == [False, False]


def test_commands_stay_on_this_machine() -> None:
    grpc = command(Target("grpc", 9000, "/a.B/C", Path("body")), 16, 400, Path("log"))
    rest = command(Target("rest", 8000, "/v1/models/m:predict", Path("body")), 16, 400, Path("log"))
    assert grpc[-1] == "http://127.0.0.1:9000/a.B/C"
    assert rest[-1] == "http://127.0.0.1:8000/v1/models/m:predict"
    assert "content-type: application/grpc" in grpc
    assert "--h1" in rest
    assert "--h1" not in grpc


def test_frame_has_flag_and_length() -> None:
    assert frame(b"abc") == b"\0\0\0\0\x03abc"
