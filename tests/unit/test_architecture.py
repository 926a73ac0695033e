"""Rules of the architecture that import-linter has no contract for; those that it has stand in .importlinter."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ie_serving", "frontends", "broker", "workers", "common")
ENVIRONMENT_HOME = "common/config.py"
ENVIRONMENT_READERS = {"environ", "environb", "getenv", "getenvb"}


def local_imports_of_ours(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Imports of this project's packages inside functions: the usual way to hide an import cycle."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            yield from ((node.lineno, name) for name in names if name.split(".")[0] in PACKAGES)


def environment_reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """`os.environ`, `os.getenv` and their like, by attribute or by `from os import`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT_READERS:
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                yield node.lineno, f"os.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ((node.lineno, a.name) for a in node.names if a.name in ENVIRONMENT_READERS)


def sources() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def parse(path: str) -> ast.AST:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def test_every_package_has_sources() -> None:
    found = {path.split("/")[0] for path in sources()}
    assert found == set(PACKAGES)


@pytest.mark.parametrize("path", sources())
def test_no_function_imports_our_own_packages(path: str) -> None:
    assert list(local_imports_of_ours(parse(path))) == []


@pytest.mark.parametrize("path", [path for path in sources() if path != ENVIRONMENT_HOME])
def test_environment_is_read_in_config_alone(path: str) -> None:
    assert list(environment_reads(parse(path))) == []


def test_checks_find_what_they_look_for() -> None:
    bad = ast.parse(
        "import os\n"
        "from os import getenv as g\n"
        "def f():\n"
        "    from common import log\n"
        "    import broker.core\n"
        "    return os.environ['A']\n"
    )
    assert {line for line, _ in local_imports_of_ours(bad)} == {4, 5}
    assert {line for line, _ in environment_reads(bad)} == {2, 6}
