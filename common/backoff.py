"""How long to wait before something that keeps failing is tried again. Pure."""

_SECONDS = (0, 1, 1, 2, 3, 5, 8, 13)


def delay_ns(failures: int) -> int:
    """Nanoseconds to wait after this many failures in a row: 0, 1, 1, 2, 3, 5, 8, 13, 13 … seconds."""
    if failures <= 0:
        return 0
    return _SECONDS[min(failures, len(_SECONDS)) - 1] * 1_000_000_000
