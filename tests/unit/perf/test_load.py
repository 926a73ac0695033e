"""perf.load: percentiles, inputs, timetable."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from perf import load
from perf.load_calls import Failure, GrpcApi
from perf.load_inputs import Input, UnusableError, arrays, from_json
from perf.load_report import Latencies, Outcome, document, text_of
from perf.load_run import Run
from perf.server import LimitServer, echo_server

# ---- what is printed


def test_percentiles_are_those_of_the_latencies_within_a_hundredth() -> None:
    random = np.random.default_rng(1)
    taken = random.lognormal(-5, 1, 20_000)
    found = Latencies()
    for each in taken:
        found.add(float(each))
    assert found.count == 20_000
    assert found.most_s == taken.max()
    for percent in (50, 90, 99, 99.9):
        right = np.percentile(taken, percent, method="inverted_cdf")
        assert found.percentile_s(percent) == pytest.approx(right, rel=0.011)
    assert sum(count for _, _, count in found.rows()) == 20_000
    assert len(found.rows()) <= 12


def test_extremes_have_a_bin() -> None:
    found = Latencies()
    for each in (0.0, 1e-9, 1e9):
        found.add(each)
    assert (found.count, found.most_s) == (3, 1e9)
    assert Latencies().percentile_s(99) == 0
    assert Latencies().rows() == []


def test_the_text_has_latencies_errors_by_code_and_what_was_not_sent() -> None:
    outcome = Outcome(seconds=2.0, unsent=7)
    for _ in range(100):
        outcome.latencies.add(0.010)
    outcome.failed("UNAVAILABLE", "first")
    outcome.failed("UNAVAILABLE", "second")
    text = text_of(outcome)
    assert "102 requests in 2.0 s: 100 answered (50.0/s), 2 errors" in text
    assert "p50 10.000  p90 10.000  p99 10.000  p99.9 10.000  max 10.000" in text
    assert "2 × UNAVAILABLE: first" in text
    assert "7 requests were due and never sent" in text
    assert "| 100" in text
    assert document(outcome, {"clients": 3})["errors"] == {"UNAVAILABLE": 2}
    assert "latency" not in text_of(Outcome())


# ---- inputs


def test_random_inputs_are_of_the_models_types_and_shapes() -> None:
    wanted = {
        "image": Input("DT_FLOAT", (-1, 3, 4)),
        "bytes": Input("DT_UINT8", (1, 500)),
        "scalar": Input("DT_INT64", ()),
        "flag": Input("DT_BOOL", (2,)),
    }
    found = arrays(wanted, {}, None)
    assert {name: (str(each.dtype), each.shape) for name, each in found.items()} == {
        "image": ("float32", (1, 3, 4)),
        "bytes": ("uint8", (1, 500)),
        "scalar": ("int64", ()),
        "flag": ("bool", (2,)),
    }
    assert len(np.unique(found["image"])) > 6
    assert arrays(wanted, {}, 5)["image"].shape == (5, 3, 4)


def test_files_take_the_models_type(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    found = arrays({"x": Input("DT_FLOAT", None)}, {"x": tmp_path / "x.npy"}, None)["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("described", "says"),
    [
        (Input("DT_FLOAT", None), "any rank: say which, with --input x=FILE.npy"),
        (Input("DT_FLOAT", (1, -1)), r"shape \[1, -1\]: say which"),
        (Input("DT_STRING", (1,)), "DT_STRING, of which no load can be made"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(described: Input, says: str) -> None:
    with pytest.raises(UnusableError, match=says):
        arrays({"x": described}, {}, None)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="no input 'y'; it has x"):
        arrays({"x": Input("DT_FLOAT", (1,))}, {"y": tmp_path}, None)
    (tmp_path / "x.npy").write_text("no array")
    with pytest.raises(UnusableError, match=r"--input x=.*x\.npy"):
        arrays({"x": Input("DT_FLOAT", (1,))}, {"x": tmp_path / "x.npy"}, None)


def test_metadata_that_is_none_is_refused() -> None:
    with pytest.raises(UnusableError, match="cannot be read"):
        from_json({"metadata": {}})


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            ["--clients=0"],
            ["--clients=99999"],
            ["--rate=0"],
            ["--seconds=inf"],
            ["--batch=0"],
            ["--input=x"],
        ),
        *(["--rest=b:1"], ["--grpc=a"]),
    ],
)
def test_nonsense_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        load.parse(["--grpc=a:1", "--model=m", *wrong])
    assert refused.value.code == 2
    assert wrong[0].partition("=")[0] in capsys.readouterr().err


# ---- the timetable


def test_a_slow_server_costs_every_due_request_its_wait() -> None:
    """One client, 50 ms an answer, 100 requests a second: 20 can be sent, and the last of them is very late."""

    async def slow() -> Failure | None:
        await asyncio.sleep(0.05)
        return None

    run = Run(1.0, 100.0, 10.0)
    asyncio.run(run.go([slow]))
    assert 1 <= run.outcome.latencies.count <= 20
    assert run.outcome.unsent == 100 - run.outcome.latencies.count
    # The k-th request was due at k/100 s and cannot be answered before (k + 1)/20 s.
    last = run.outcome.latencies.count
    assert run.outcome.latencies.most_s >= last / 20 - (last - 1) / 100 - 0.01


def test_without_a_rate_each_client_has_one_request_at_a_time() -> None:
    under_way = most = 0

    async def send() -> Failure | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return Failure("NOT_FOUND", "no such model")

    run = Run(0.3, None, 10.0)
    asyncio.run(run.go([send] * 3))
    assert most == 3
    assert set(run.outcome.errors) == {"NOT_FOUND"}
    assert run.outcome.unsent == run.outcome.latencies.count == 0


def test_a_stop_keeps_what_was_measured_and_waits_for_nothing() -> None:
    async def scenario() -> Run:
        run = Run(60.0, None, 60.0)
        calls = 0

        async def send() -> Failure | None:
            nonlocal calls
            calls += 1
            if calls > 5:
                run.stop.set()
                await asyncio.sleep(60)
            return None

        await run.go([send])
        return run

    run = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert run.outcome.latencies.count == 5
    assert run.outcome.seconds < 30


@pytest.mark.integration
def test_a_pause_of_the_server_is_charged_to_all_that_were_due_in_it() -> None:
    async def scenario(echo: LimitServer) -> Run:
        run = Run(3.0, 200.0, 30.0)
        async with GrpcApi(f"127.0.0.1:{echo.port}", "any", 30.0).client({"x": np.zeros(1)}) as send:
            work = asyncio.ensure_future(run.go([send]))
            await asyncio.sleep(0.5)
            os.kill(echo.pid, signal.SIGSTOP)
            await asyncio.sleep(0.6)
            os.kill(echo.pid, signal.SIGCONT)
            await work
        return run

    with echo_server(0) as echo:
        outcome = asyncio.run(scenario(echo)).outcome
    assert not outcome.errors
    # 120 were due in the pause, 100 of them more than 0.1 s before its end. With one client only one was on its way.
    slow = sum(count for begin, _, count in outcome.latencies.rows(most=200) if begin > 0.09)
    assert slow >= 95
    assert outcome.latencies.most_s >= 0.59
