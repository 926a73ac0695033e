"""The command `ie_serving`: one line on standard error and a code other than 0 for whatever goes wrong."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.config import read_environment
from ie_serving import arguments, run_directory, scale, server, status
from ie_serving.errors import USAGE, CommandError, UsageError

_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code. `argv` is without the program's name."""
    try:
        options = arguments.parse(sys.argv[1:] if argv is None else argv)
        return _run(options)
    except UsageError as error:
        _complain(str(error))
        return USAGE
    except CommandError as error:
        _complain(f"ie_serving: {error}")
        return error.code
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    if options.command is None:
        arguments.make_parser().print_help()
        return 0
    if options.command == "config":
        raise UsageError("ie_serving config is not supported yet: start one model with `ie_serving model`")
    environment = read_environment()
    if options.command == "model":
        run_dir = run_directory.choose(options.run_dir, environment.run_dir, options.port)
        return server.serve(arguments.resolve(options, environment, run_dir, Path.cwd()))
    if options.command == "status" and options.any:
        run_dir = run_directory.find_any(environment.run_dir)
    else:
        run_dir = run_directory.choose(options.run_dir, environment.run_dir, options.port)
    if options.command == "status":
        return status.show(run_dir, as_json=options.json, check=options.check)
    return scale.scale(run_dir, options.device, options.replicas, wait=not options.no_wait)


def _complain(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)
