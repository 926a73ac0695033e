"""For all tests."""

import sys

import pytest
from hypothesis import settings

from tests.support import interpreted

if "--compiled" not in sys.argv:
    interpreted.prefer_sources()

from common.config import TRANSPORTS
from tests.support import server

# No deadlines: how long an example takes says more of the machine than of the code.
settings.register_profile("usual", deadline=None)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile("usual")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption(
        "--flip-seconds", type=float, default=8.0, help="how long versions come and go under load [s]"
    )
    parser.addoption(
        "--largest-messages",
        action="store_true",
        help="send messages of 1 GiB, for which some GB of memory are wanted",
    )
    parser.addoption(
        "--compiled",
        action="store_true",
        help="import the compiled modules into the process of the tests as well, not only into the servers they start",
    )
    parser.addoption(
        "--grpc-transport", choices=TRANSPORTS, default="", help="by which whole servers speak gRPC"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is asked for by an option of its own is no test where it is not."""
    if not config.getoption("--largest-messages"):
        left_out = [item for item in items if item.get_closest_marker("largest")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_configure(config: pytest.Config) -> None:
    """Options that tests do not ask for themselves; and whether servers would run what the sources say."""
    if config.getoption("--compiled") and config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "--compiled is not passed on to processes of pytest-xdist: leave --numprocesses out"
        )
    if stale := interpreted.stale():
        raise pytest.UsageError(
            f"{stale[0].relative_to(interpreted.ROOT)} was changed after it was compiled ({len(stale)} such files): "
            "`make compile` compiles anew, `make clean-compiled` has everything interpreted"
        )
    server.transport = config.getoption("--grpc-transport")
