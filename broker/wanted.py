"""The wanted state on disk: what a successor of a killed broker goes on from. Written whole, by rename."""

import os
from pathlib import Path

import msgspec

from broker.commands import WantedState

_FILE = "wanted.json"


def load_wanted(run_dir: Path) -> WantedState:
    """What the last broker wrote, or the beginning. Raises msgspec.ValidationError for a file of another version."""
    try:
        return msgspec.json.decode((run_dir / _FILE).read_bytes(), type=WantedState)
    except FileNotFoundError:
        return WantedState()


def save_wanted(run_dir: Path, state: WantedState) -> None:
    """Replace the file. A process that is killed here leaves the old one; there is no power loss to survive."""
    draft = run_dir / f"{_FILE}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(state))
    draft.replace(run_dir / _FILE)
