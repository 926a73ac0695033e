"""What is to be measured, from the command line and the plan."""

import pytest

from perf.__main__ import parse, settings_of
from perf.generate import MOST_REQUESTS, requests_for
from perf.models import BUILDERS
from perf.plan import LINES, QUICK, Settings
from perf.scenarios import SCENARIOS, lines_of, scenarios_of
from perf.server import setup_text
from perf.serving import CASES


def test_defaults() -> None:
    arguments = parse([])
    assert settings_of(arguments) == Settings()
    assert lines_of(arguments.only) == list(LINES)
    assert scenarios_of(LINES) == list(SCENARIOS)


def test_single_options_win_over_quick() -> None:
    settings = settings_of(parse(["--quick", "--rounds", "2"]))
    assert settings == Settings(seconds=QUICK.seconds, rounds=2)


def test_lines_and_scenarios_are_asked_for_by_name() -> None:
    assert [line.name for line in lines_of("resnet50,tiny-p50")] == [
        "tiny-p50",
        "resnet50-grpc",
        "resnet50-rest",
    ]
    assert [each.name for each in scenarios_of(lines_of("models-10,start"))] == ["alone", "models"]
    with pytest.raises(SystemExit, match="'foo' is not measured; known are alone, tiny"):
        lines_of("tiny,foo")


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--rounds", "0"], ["--seconds", "x"]])
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(arguments)
    assert refused.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_every_line_has_a_scenario_that_measures_what_it_is_made_of() -> None:
    assert len({line.name for line in LINES}) == len(LINES)
    assert {line.scenario for line in LINES} == {scenario.name for scenario in SCENARIOS}
    measured = {(case.model, step.what, step.clients) for case in CASES for step in case.steps}
    for line in LINES:
        assert line.at_least == (line.aim > line.bar)
        if line.scenario in {case.model for case in CASES}:
            assert line.of in measured
            assert line.to is None or line.to in measured


def test_models_can_be_built() -> None:
    assert {name for scenario in SCENARIOS for name in scenario.models} <= set(BUILDERS)


def test_a_setup_names_workers_threads_nireq_and_transport() -> None:
    assert setup_text({"models": [{}]}, 1, 2) == "1+1f 1w×2t nireq auto native"
    resolved = {"grpc_workers": 2, "models": [{"nireq": 3}, {}], "grpc_transport": "native"}
    assert setup_text(resolved, 4, 2) == "2+1f 4w×1t nireq 3/auto native"


def test_each_client_sends_the_same_number() -> None:
    assert requests_for(1000.0, 3.0, 16) % 16 == 0
    assert requests_for(1000.0, 3.0, 16) == pytest.approx(3000, abs=16)
    assert requests_for(0.1, 1.0, 4) == 8
    assert requests_for(1e9, 100.0, 1) == MOST_REQUESTS
