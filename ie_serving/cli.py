"""The command `ie_serving`: one line on standard error and a code other than 0 for whatever goes wrong."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from common.config import ServerConfig, read_environment
from common.config_file import ConfigFileError, read_config_file
from ie_serving import arguments, resolution, run_directory
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
    environment = read_environment()
    if options.command in ("model", "config"):
        run_dir = run_directory.choose(options.run_dir, environment.run_dir, options.port)
        config = resolution.resolve(options, environment, run_dir, Path.cwd())
        code: int = _command("server").serve(_with_models(config, resolution.warnings(options)))
        return code
    if options.command == "status" and options.any:
        run_dir = run_directory.find_any(environment.run_dir)
    else:
        run_dir = run_directory.choose(options.run_dir, environment.run_dir, options.port)
    if options.command == "status":
        code = _command("status").show(run_dir, as_json=options.json, check=options.check)
    else:
        code = _command("scale").scale(run_dir, options.device, options.replicas, wait=not options.no_wait)
    return code


def _command(module: str) -> Any:
    """A command's module, imported when it is given: the server needs no ZeroMQ, a question no supervisord."""
    return importlib.import_module(f"ie_serving.{module}")


def _with_models(config: ServerConfig, warnings: Sequence[str]) -> ServerConfig:
    """The configuration with what its file says, if it names one; all warnings are said. Raises CommandError."""
    if config.config_path:
        try:
            found = read_config_file(Path(config.config_path), config)
        except ConfigFileError as error:
            raise CommandError(str(error)) from None
        config = msgspec.structs.replace(config, models=found.models, devices=found.devices)
        warnings = [f"{config.config_path}: {text}" for text in found.warnings]
    for text in warnings:
        _complain(f"ie_serving: warning: {text}")
    return config


def _complain(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)
