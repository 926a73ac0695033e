"""What is to be measured, from the command line and the plan."""

import pytest

from perf.__main__ import cases_of, parse, settings_of
from perf.load import MOST_REQUESTS, requests_for
from perf.models import BUILDERS
from perf.plan import CASES, CLIENTS, QUICK, Settings, Setup


def test_defaults() -> None:
    arguments = parse([])
    assert settings_of(arguments) == Settings()
    assert cases_of(arguments.only) == list(CASES)


def test_single_options_win_over_quick() -> None:
    settings = settings_of(parse(["--quick", "--rounds", "2", "--clients", "1,4"]))
    assert settings == Settings(seconds=QUICK.seconds, rounds=2, clients=(1, 4))


def test_only() -> None:
    assert [case.model for case in cases_of("resnet50,tiny")] == ["resnet50", "tiny"]
    with pytest.raises(SystemExit, match="unknown model 'foo'"):
        cases_of("tiny,foo")


@pytest.mark.parametrize(
    "arguments",
    [["--seconds", "0"], ["--rounds", "0"], ["--clients", "0"], ["--clients", "x"], ["--seconds", "x"]],
)
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(arguments)
    assert refused.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_plan_is_measurable() -> None:
    for case in CASES:
        assert case.model in BUILDERS
        assert set(case.grpc_clients) | set(case.rest_clients) <= set(CLIENTS)
        assert {bar.clients for bar in case.bars} <= set(case.grpc_clients)


def test_a_setup_names_workers_threads_and_nireq() -> None:
    assert Setup().text(2) == "1+1f 1w×2t nireq 1"
    assert Setup(workers=2, nireq=3, plugin_config='{"A": 1}').text(2) == '1+1f 2w×1t nireq 3 {"A": 1}'
    assert "4w×1t" in Setup(workers=4).text(2)


def test_each_client_sends_the_same_number() -> None:
    assert requests_for(1000.0, 3.0, 16) % 16 == 0
    assert requests_for(1000.0, 3.0, 16) == pytest.approx(3000, abs=16)
    assert requests_for(0.1, 1.0, 4) == 8
    assert requests_for(1e9, 100.0, 1) == MOST_REQUESTS
