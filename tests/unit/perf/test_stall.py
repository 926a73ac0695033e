"""`python -m perf.stall` prints a line for every form of a long body; the times themselves are the machine's."""

import asyncio

import pytest

from perf import stall


def test_every_form_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stall, "REQUESTS", 1)
    monkeypatch.setattr(stall, "share_fairly", lambda: None)  # this process has other tests to run
    asyncio.run(stall._measure())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(stall._FORMS) + 2
    for line in lines[1:]:
        *_, kilobytes, parse, hold = line.split()
        assert int(kilobytes) > 1800
        assert float(parse) >= 0
        assert float(hold) > 0
