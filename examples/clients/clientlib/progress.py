"""Printed lines with a bar below them, where somebody watches and the run is long. Without tqdm there is no bar."""

import sys
from types import TracebackType
from typing import Any

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None  # type: ignore[assignment,misc]  # a package that need not be there

LONG_RUN = 20
"""Requests from which on a run is long."""


class Progress:
    """Of `total` requests. Lines go to standard output, the bar to standard error."""

    def __init__(self, total: int) -> None:
        watched = sys.stdout.isatty() and sys.stderr.isatty()
        self._bar: Any = None
        if tqdm is not None and watched and total >= LONG_RUN:
            self._bar = tqdm(total=total, unit="request", leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, lines: list[str]) -> None:
        """A request is done; what there is to say of it."""
        text = "\n".join(lines)
        if self._bar is None:
            print(text)
        else:
            self._bar.write(text)
            self._bar.update()
