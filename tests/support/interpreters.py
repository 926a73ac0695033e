"""Interpreters with an OpenVINO of another release, each in a virtual environment that is made once and kept.

They come from the package index by pip. A test that wants one is skipped, with the reason, where there is no Python of
the version that the release has a wheel for, or where the packages cannot be had.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = 300.0
PACKAGES = ("numpy<2", "pyzmq", "msgspec")
"""All that a worker needs beside OpenVINO."""


def python_of(version: str) -> str | None:
    """An interpreter of this version, `3.10`: the running one, on the PATH, or among those that pyenv keeps."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = [shutil.which(f"python{version}"), *_of_pyenv(version)]
    return next((python for python in found if python is not None and _runs(python, version)), None)


def _of_pyenv(version: str) -> list[str]:
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return []
    names = _run([pyenv, "versions", "--bare"]).stdout.split()
    kept = [name for name in names if name.startswith(f"{version}.")]
    return [f"{_run([pyenv, 'prefix', name]).stdout.strip()}/bin/python" for name in kept]


def with_openvino(release: str, version: str, cache: Path) -> str:
    """An interpreter of this version with this release. Skips the test where there is none."""
    environment = cache / f"openvino-{release}-python-{version}"
    python = environment / "bin" / "python"
    if (environment / "complete").exists():
        return str(python)
    base = python_of(version)
    if base is None:
        pytest.skip(f"OpenVINO {release} wants Python {version}, which is not here")
    shutil.rmtree(environment, ignore_errors=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    steps = [
        [base, "-m", "venv", environment],
        [*pip, "--no-deps", f"openvino=={release}"],
        [*pip, *PACKAGES],
    ]
    for step in steps:
        ended = _run([str(word) for word in step])
        if ended.returncode != 0:
            last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            pytest.skip(f"OpenVINO {release} for Python {version} cannot be installed: {last}")
    (environment / "complete").touch()
    return str(python)


def _runs(python: str, version: str) -> bool:
    """A name on the PATH may be a stand-in for an interpreter that is not there."""
    try:
        asked = _run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    except OSError:
        return False
    return asked.returncode == 0 and asked.stdout.strip() == version


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
