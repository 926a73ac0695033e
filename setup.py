"""Compiles the hot modules with mypyc, where the environment asks for it: IE_SERVING_COMPILE=1. What else setuptools is
told stands in pyproject.toml.

    IE_SERVING_COMPILE=1 python setup.py build_ext --inplace      what `make compile` does
    IE_SERVING_COMPILE=1 pip install --no-build-isolation .       what the Dockerfile does

The sources are the same either way. What is not compiled, or is compiled for another version of Python, is interpreted.
"""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HOT = (
    "broker/batching.py",
    "broker/book.py",
    "broker/core.py",
    "broker/lines.py",
    "broker/outbox.py",
    "broker/peers.py",
    "broker/requests.py",
    "broker/router.py",
    "broker/scheduler.py",
    "broker/suspects.py",
    "broker/work.py",
    "common/allocator.py",
    "common/arena.py",
    "common/link.py",
    "common/peer.py",
    "common/transport.py",
    "frontends/admission.py",
    "frontends/broker_client.py",
    "frontends/catalogue.py",
    "frontends/conversion.py",
    "frontends/dataplane.py",
    "frontends/forms.py",
    "frontends/gathering.py",
    "frontends/grpc/http2/*.py",
    "frontends/grpc/native/*.py",
    "frontends/grpc/predict_reader.py",
    "frontends/grpc/predict_wire.py",
    "frontends/grpc/requests.py",
    "frontends/grpc/tensorflow_serving.py",
    "frontends/grpc/wire.py",
    "frontends/inference.py",
    "frontends/ledger.py",
    "frontends/memory.py",
    "frontends/plans.py",
    "frontends/prediction.py",
    "frontends/recipes.py",
    "frontends/requests.py",
    "workers/answers.py",
    "workers/binding.py",
    "workers/loop.py",
    "workers/memory.py",
    "workers/openvino_bound.py",
    "workers/pace.py",
    "workers/queue.py",
    "workers/versions.py",
)
"""What every request goes through. Not among them: modules that are started with `python -m`, those whose classes are
msgspec's or are looked into at run time, which mypyc does not do, and REST's, which read large JSON slower compiled."""

GROUP = "ie_serving"
"""All are one library, ie_serving__mypyc, so that they call each other directly."""


class BuildTogether(build_ext):
    """Runs as many C compilers at once as there are cores; setuptools runs one for each library."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link one library."""
        compiler: Any = self.compiler
        one_after_the_other = compiler.compile

        def compile_(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                parts = pool.map(lambda source: one_after_the_other([source], *args, **options), sources)
                return [compiled for part in parts for compiled in part]

        compiler.compile = compile_
        try:
            super().build_extension(ext)
        finally:
            compiler.compile = one_after_the_other


def hot_modules() -> list[str]:
    """Paths of the sources to compile."""
    found = sorted(str(path) for pattern in HOT for path in Path().glob(pattern))
    return [path for path in found if not path.endswith("__init__.py")]


def extensions() -> list[Extension]:
    """What mypyc makes of them. It checks their types first, and ends the build where they are wrong."""
    if os.environ.get("IE_SERVING_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    # Nothing is kept between runs, which mypy itself may be one of at this moment.
    options = ["--config-file", "pyproject.toml", "--cache-dir", os.devnull, *hot_modules()]
    compiled: list[Extension] = mypycify(
        options, opt_level="2", debug_level="0", multi_file=True, group_name=GROUP
    )
    # mypyc leaves millions of objects; searching them for garbage took 11 s when the interpreter ended.
    gc.freeze()
    return compiled


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildTogether})
