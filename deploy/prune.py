"""Removes from an installation what the server never reads, to keep the container image small.

    python deploy/prune.py SITE_PACKAGES

Of TensorFlow nothing but the generated messages stays: `frontends/grpc/tensorflow_protos.py` says why they alone are
needed. Everywhere else go tests, headers, sources of compiled modules and stubs. Licences, which lie in the
`*.dist-info` directories, stay.
"""

import shutil
import sys
from pathlib import Path

# What builds, compiles and installs, and is done with that.
TOOLS = (
    *("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"),
    *(
        "mypy",
        "mypyc",
        "mypy-*",
        "mypy_extensions*",
        "librt*",
        "pathspec*",
        "ast_serialize*",
        "[0-9a-f]*__mypyc.*",
    ),
    *("grpc-stubs", "grpc_*-stubs", "google-stubs", "types_*"),
)
# Parts of packages that the server does not import: OpenVINO's headers and its converters for other frameworks' files
# (the readers of those formats are in openvino/libs and stay).
PARTS = ("openvino/include", "openvino/cmake", "openvino/tools", "openvino/torch", "openvino_telemetry")
SOURCE_SUFFIXES = {".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx", ".a", ".lib"}
TEST_DIRECTORIES = {"tests", "test"}


def remove(path: Path) -> None:
    """Remove a file or a whole directory; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_messages_only(package: Path) -> None:
    """Of a package, keep the modules that protoc generated."""
    for path in package.rglob("*"):
        if not path.is_dir() and not path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
            path.unlink()
    for path in sorted(package.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def main(site_packages: Path) -> None:
    """Prune the installation in that directory."""
    for name in (*TOOLS, *PARTS):
        for path in list(site_packages.glob(name)):
            remove(path)
    for name in ("tensorflow", "tensorflow_serving"):
        keep_messages_only(site_packages / name)
    for path in sorted(site_packages.rglob("*")):
        if path.is_dir() and path.name in TEST_DIRECTORIES:
            remove(path)
        elif path.suffix in SOURCE_SUFFIXES and path.is_file():
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
