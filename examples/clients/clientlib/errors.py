"""How a client ends: 0, or one line on standard error and 1."""

import os
import signal
import sys
from collections.abc import Callable

INTERRUPTED = 128 + signal.SIGINT


class ClientError(Exception):
    """What the user is told: a server that is not there or refuses, a file that is no good."""


def run(client: Callable[[], None]) -> int:
    """Run a client to its end; the process's exit code."""
    try:
        client()
        sys.stdout.flush()
    except ClientError as error:
        # Reasons that come from a server or a library may have several lines.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads the output has seen enough; without this Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
