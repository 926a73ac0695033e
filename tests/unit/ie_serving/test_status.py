import pytest

from ie_serving.control import (
    FrontendStatus,
    ModelStatus,
    PoolStatus,
    Status,
    VersionStatus,
    WorkerStatus,
    read_status,
)
from ie_serving.errors import CommandError
from ie_serving.scale import is_reached
from ie_serving.status import render, table

DOCUMENT = """{"ready": true, "epoch": 2, "config_error": "", "models": [{"name": "digits", "error": "", "versions":
[{"version": 1, "state": "AVAILABLE", "error": "", "workers": ["CPU-0"], "queued": 3, "running": 1}]}],
"pools": [{"device": "CPU", "wanted": 1, "serving": 1}], "workers": [{"slot": "CPU-0", "device": "CPU", "pid": 12,
"state": "serving", "loaded": [["digits", 1]], "in_hand": 1, "restarts": 0}, {"slot": "CPU-1", "device": "CPU",
"pid": null, "state": "backoff", "loaded": [], "in_hand": 0, "restarts": 4}], "frontends": [{"name": "grpc-0",
"kind": "grpc", "pid": 11, "listening": true, "requests": 4}], "queued": 3, "refused": {"UNAVAILABLE": 1}}"""


def test_document() -> None:
    assert read_status(DOCUMENT) == Status(
        ready=True,
        epoch=2,
        models=(ModelStatus("digits", (VersionStatus(1, "AVAILABLE", "", ("CPU-0",), 3, 1),)),),
        pools=(PoolStatus("CPU", 1, 1),),
        workers=(
            WorkerStatus("CPU-0", "CPU", "serving", 12, (("digits", 1),), 1, 0),
            WorkerStatus("CPU-1", "CPU", "backoff", None, (), 0, 4),
        ),
        frontends=(FrontendStatus("grpc-0", "grpc", 11, True, 4),),
        queued=3,
    )


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"ready": 1}'])
def test_foreign_document(document: str) -> None:
    with pytest.raises(CommandError, match="is not understood"):
        read_status(document)


def test_rendered() -> None:
    assert render(read_status(DOCUMENT)) == (
        "ready, 3 requests queued\n"
        "\n"
        "MODEL   VERSION  STATE      WORKERS  QUEUED  RUNNING  ERROR\n"
        "digits        1  AVAILABLE  CPU-0         3        1\n"
        "\n"
        "DEVICE  WANTED  SERVING\n"
        "CPU          1        1\n"
        "\n"
        "WORKER  DEVICE  PID  STATE    IN HAND  RESTARTS  LOADED\n"
        "CPU-0   CPU     12   serving        1         0  digits:1\n"
        "CPU-1   CPU     -    backoff        0         4  -\n"
        "\n"
        "FRONTEND  KIND  PID  LISTENING  REQUESTS\n"
        "grpc-0    grpc   11  yes               4"
    )


def test_labels_notes_and_emulation_are_shown_where_there_are_any() -> None:
    models = (
        ModelStatus(
            "m",
            (VersionStatus(1, "AVAILABLE", notes=("it keeps its\nown shape",)), VersionStatus(2, "LOADING")),
            labels={"stable": 1, "canary": 2, "best": 1},
        ),
        ModelStatus("gone", leaving=True),
    )
    pools = (PoolStatus("MYRIAD", 1, 1, emulated_on="CPU"), PoolStatus("CPU", 1, 1))
    assert render(Status(ready=True, models=models, pools=pools)).startswith(
        "ready, 0 requests queued\n"
        "\n"
        "MODEL  VERSION  STATE      LABELS       WORKERS  QUEUED  RUNNING  ERROR\n"
        "m      1        AVAILABLE  best stable  -             0        0\n"
        "m      2        LOADING    canary       -             0        0\n"
        "gone   -        -                       -             0        0  is leaving\n"
        "\n"
        "model m version 1: it keeps its own shape\n"
        "\n"
        "DEVICE  WANTED  SERVING  EMULATED ON\n"
        "MYRIAD       1        1  CPU\n"
        "CPU          1        1\n"
    )


def test_a_model_without_versions_and_an_error_of_several_lines() -> None:
    models = (
        ModelStatus("waiting"),
        ModelStatus("unreadable", error="no\n  permission"),
        ModelStatus("broken", (VersionStatus(1, "LOADING", "bad\nfile"),)),
    )
    lines = render(Status(ready=False, models=models)).splitlines()
    assert lines[0] == "not ready, 0 requests queued"
    assert any(line.startswith("waiting ") and line.endswith("no version found yet") for line in lines)
    assert any(line.startswith("unreadable ") and line.endswith("no permission") for line in lines)
    assert any(line.startswith("broken ") and line.endswith("bad file") for line in lines)


def test_frontends_stand_in_order() -> None:
    frontends = tuple(FrontendStatus(name, "grpc", 1, True) for name in ("grpc-1", "grpc-0"))
    text = render(Status(ready=True, frontends=frontends))
    assert text.index("grpc-0") < text.index("grpc-1")


def test_empty_table() -> None:
    assert table(("A", "BB"), []) == "A  BB"


@pytest.mark.parametrize(
    ("pool", "reached"),
    [
        (PoolStatus("CPU", 4, 4), True),
        (PoolStatus("CPU", 4, 3), False),
        (PoolStatus("CPU", 2, 2), False),
        (PoolStatus("CPU", 2, 4), False),
    ],
)
def test_scaling_is_done_when_all_serve(pool: PoolStatus, reached: bool) -> None:
    assert is_reached(pool, 4) == reached
