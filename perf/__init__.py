"""Measures the server against its limits on this machine: `python -m perf`."""
