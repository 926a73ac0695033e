"""What the command tells its user, in one line, before it exits."""

USAGE = 2
FAILURE = 1


class CommandError(Exception):
    """Ends the command: its text goes to standard error, `code` is the exit code."""

    code = FAILURE


class UsageError(CommandError):
    """The command line or the environment is wrong."""

    code = USAGE


class NoInstanceError(CommandError):
    """There is no running server to talk to."""
