"""What a worker needs to run: an interpreter of its own may have no more than these four packages.

Found in the sources and not in sys.modules, where whatever those packages import would be too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from common.build import LIBRARY

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = ("workers.service", "workers.openvino_engine")
ALLOWED = {"msgspec", "numpy", "openvino", "zmq"}
OLDEST = (3, 10)


def source(module: str) -> Path | None:
    """The file of one of our modules; None for what is a name in a module."""
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imports(file: Path) -> Iterator[str]:
    """Everything that it imports, wherever in the file; of `from a import b` both a and a.b."""
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=OLDEST)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure() -> tuple[set[str], set[str]]:
    """Our modules that a worker imports, and the packages of others."""
    ours: set[str] = set()
    others: set[str] = set()
    waiting = list(ENTRIES)
    while waiting:
        module = waiting.pop()
        file = source(module)
        if file is None or module in ours:
            continue
        ours.add(module)
        for name in imports(file):
            package = name.partition(".")[0]
            if (ROOT / package / "__init__.py").is_file():
                waiting += [name, package]
            else:
                others.add(package)
    return ours, others


def test_a_worker_imports_four_packages_of_others_and_two_of_ours() -> None:
    ours, others = closure()
    assert "workers.loop" in ours, "the search finds what it is to find"
    assert others - set(sys.stdlib_module_names) == ALLOWED
    assert {module.partition(".")[0] for module in ours} == {"workers", "common"}


def test_nothing_else_is_there_when_it_starts() -> None:
    """With everything else hidden, it can be imported."""
    script = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        allowed = {ALLOWED!r} | {{"workers", "common", "{LIBRARY}", "openvino_telemetry", "numpy_distutils"}}
        if path is None and package not in allowed and package not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{{name}} is hidden", name=name)
sys.meta_path.insert(0, Hide())
import workers.service, workers.openvino_engine
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
