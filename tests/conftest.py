"""For all tests."""

import pytest
from hypothesis import settings

settings.register_profile("deep", max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption(
        "--flip-seconds", type=float, default=8.0, help="how long versions come and go under load [s]"
    )
