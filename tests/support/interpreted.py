"""Which form of a compiled module the process of the tests imports: its source. Servers that it starts take the other.

White-box tests and fuzzers look into what is imported, and it was edited a minute ago; so `make compile` must not
matter to them. `pytest --compiled` imports what is compiled all the same.
"""

import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("broker", "common", "frontends", "workers")


def prefer_sources() -> None:
    """From now on, where a module of the project has a source and a compiled form, the source is imported."""
    order = ((SourceFileLoader, SOURCE_SUFFIXES), (ExtensionFileLoader, EXTENSION_SUFFIXES))
    usual = FileFinder.path_hook(*order)

    def hook(path: str) -> FileFinder:
        if not Path(path).resolve().is_relative_to(ROOT) or ".venv" in Path(path).parts:
            raise ImportError(path)
        found: FileFinder = usual(path)  # type: ignore[assignment]
        return found

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def compiled() -> list[Path]:
    """The compiled modules that this interpreter would import."""
    ending = EXTENSION_SUFFIXES[0]
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob(f"*{ending}"))


def source_of(module: Path) -> Path:
    """Where a compiled module came from."""
    return module.with_name(module.name.partition(".")[0] + ".py")


def stale() -> list[Path]:
    """Sources that were changed, or went, since they were compiled."""
    sources = [(source_of(module), module.stat().st_mtime) for module in compiled()]
    return [source for source, made in sources if not source.exists() or source.stat().st_mtime > made]
