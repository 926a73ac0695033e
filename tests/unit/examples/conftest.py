"""The clients run as files and find what they share beside them; so must their tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "clients"))
