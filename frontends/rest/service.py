"""The REST frontend: `python -m frontends.rest.service --run-dir DIR`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.config import ServerConfig, load
from frontends.rest.server import run
from frontends.runtime import FrontendRuntime

_PAUSE_S = 1.0
"""Before the process ends with an error: supervisord starts it again at once."""


async def _start(config: ServerConfig) -> FrontendRuntime:
    return await FrontendRuntime.start(config, kind="rest", name_hint="rest")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(prog="frontends.rest.service", description="The REST frontend")
    parser.add_argument("--run-dir", type=Path, required=True, help="directory that holds the configuration")
    options = parser.parse_args(arguments)
    code = run(load(options.run_dir), _start)
    if code:
        time.sleep(_PAUSE_S)
    return code


if __name__ == "__main__":
    sys.exit(main())
