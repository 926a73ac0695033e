"""The command `ie_serving`: arguments to resolved configuration to run directory to supervisord."""

__version__ = "0.1.0"
