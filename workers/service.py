"""The process of a worker: `python -m workers.service --run-dir DIR --slot CPU-0 --device CPU --plan 0/2`.

SIGTERM keeps its default action, and so does SIGINT: a worker owns nothing that its end could damage.
"""

import argparse
import importlib
import logging
import os
import signal
from pathlib import Path

from common import config
from common.config import ServerConfig
from common.log import Logging
from common.process import available_cores, die_with_parent, spare_heap, this_process
from workers.engine import Engine
from workers.fake_engine import FakeEngine
from workers.loop import Loop
from workers.properties import Plan, uses_cpu

FAKE_DEVICE = "FAKE"
_log = logging.getLogger("workers")


def parse_plan(text: str) -> Plan:
    """`i/n`: replica i, from 0, of n. Raises ValueError, which argparse reports."""
    replica, _, replicas = text.partition("/")
    plan = Plan(int(replica), int(replicas))
    if not 0 <= plan.replica < plan.replicas:
        raise ValueError(text)
    return plan


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of this process; the broker writes it."""
    parser = argparse.ArgumentParser(prog="workers.service", description="Infers on one device.")
    parser.add_argument("--run-dir", type=Path, required=True, help="directory of sockets and state")
    parser.add_argument("--slot", required=True, help="name of this worker's program with supervisord")
    parser.add_argument("--device", required=True, help="OpenVINO device string")
    parser.add_argument("--emulate-on", default="", help="device that stands in for it, for development")
    parser.add_argument(
        "--plan", type=parse_plan, default=Plan(0, 1), help="i/n: replica i of n of the device"
    )
    return parser.parse_args(arguments)


def make_engine(device: str, plan: Plan, settings: ServerConfig, emulate_on: str = "") -> Engine:
    """The engine for a device, after this process has taken its place on the machine.

    OpenVINO looks at the affinity when its library is loaded, which is why it is imported here and not above.
    """
    if device.partition(".")[0] == FAKE_DEVICE:
        return FakeEngine()
    cores = plan.cores(available_cores())
    if plan.replicas > 1 and uses_cpu(emulate_on or device):
        os.sched_setaffinity(0, cores)
        _log.info("worker %d of %d on %s takes cores %s", plan.replica, plan.replicas, device, cores)
    module = importlib.import_module("workers.openvino_engine")
    cache_dir = Path(settings.cache_dir) if settings.cache_dir else None
    engine: Engine = module.OpenVinoEngine(
        device, len(cores), settings.cpu_extension, emulate_on=emulate_on, cache_dir=cache_dir
    )
    return engine


def main() -> None:
    """Run until killed."""
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = parse_arguments()
    settings = config.load(arguments.run_dir)
    logging_ = Logging(settings.log_level, Path(settings.log_path) if settings.log_path else None)
    try:
        engine = make_engine(arguments.device, arguments.plan, settings, arguments.emulate_on)
        loop = Loop(arguments.slot, arguments.run_dir, engine, this_process())
        spare_heap()
        loop.run()
    except BaseException:
        _log.exception("the worker ends")
        raise
    finally:
        logging_.close()


if __name__ == "__main__":
    main()
