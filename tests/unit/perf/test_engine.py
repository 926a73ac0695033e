"""Reading benchmark_app."""

import pytest

from perf.engine import EngineFailedError, parse
from perf.stats import Figures

THROUGHPUT = """\
[Step 8/11] Querying optimal runtime parameters
[ INFO ]   NUM_STREAMS: 2
[ INFO ]   INFERENCE_NUM_THREADS: 2
[Step 10/11] Measuring performance (Start inference asynchronously, 4 inference requests, limits: 2000 ms duration)
[ INFO ] First inference took 4.75 ms
[ INFO ] Count:            1058 iterations
[ INFO ] Duration:         2007.26 ms
[ INFO ] Latency:
[ INFO ]    Median:        3.60 ms
[ INFO ]    Average:       3.68 ms
[ INFO ] Throughput:   527.09 FPS
"""

LATENCY = """\
[ INFO ]   NUM_STREAMS: 1
[ INFO ]   INFERENCE_NUM_THREADS: 2
[Step 10/11] Measuring performance (Start inference synchronously, limits: 1000 ms duration)
[ INFO ] Count:            86593 iterations
[ INFO ]    Median:        6.38 us
[ INFO ] Throughput:   86591.94 FPS
"""


def test_throughput_hint() -> None:
    run = parse(THROUGHPUT)
    assert run.figures == Figures(1058, 0, 527.09, 3.60, None)
    assert (run.streams, run.threads, run.nireq) == (2, 2, 4)
    assert run.text() == "2 streams 2t nireq 4"


def test_latency_hint_in_microseconds() -> None:
    run = parse(LATENCY)
    assert run.figures.p50_ms == pytest.approx(0.00638)
    assert run.nireq == 1


@pytest.mark.parametrize("line", ["Count", "Median", "Throughput"])
def test_an_unfinished_run_is_refused(line: str) -> None:
    with pytest.raises(EngineFailedError, match="did not finish"):
        parse(THROUGHPUT.replace(line, "x"))
