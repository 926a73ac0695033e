"""`python -m perf.load`: load on a server of yours, and what its answers take.

    python -m perf.load --grpc localhost:9000 --model resnet --clients 16 --seconds 30
    python -m perf.load --rest localhost:8000 --model resnet --rate 200

It asks the server what inputs the model has and sends random ones. Ctrl-C prints what was measured so far.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from perf.load_calls import Api, GrpcApi, RestApi
from perf.load_inputs import UnusableError, arrays
from perf.load_report import document, text_of
from perf.load_run import Run

CLIENTS, SECONDS, TIMEOUT_S = 16, 10.0, 60.0
MOST_CLIENTS = 4096
_SHOW_S = 0.2


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _clients(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_CLIENTS:
        raise ValueError(text)
    return value


def _batch(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def _file(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE.npy")
    return name, Path(path)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.load",
        description="Put load on a server that speaks the TensorFlow Serving API. Exits with 1 after errors, with 2 "
        "where the load could not begin.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--grpc", type=_address, metavar="HOST:PORT", help="ask over gRPC")
    where.add_argument("--rest", type=_address, metavar="HOST:PORT", help="ask over REST, with JSON")
    parser.add_argument("--model", required=True, help="name that the model is served by")
    parser.add_argument(
        "--clients",
        type=_clients,
        default=CLIENTS,
        help=f"connections, each with one request at a time ({CLIENTS})",
    )
    parser.add_argument("--seconds", type=_positive, default=SECONDS, help=f"how long ({SECONDS:g})")
    parser.add_argument(
        "--rate",
        type=_positive,
        help="requests a second of all clients together, whatever the answers take; latencies count from the moment "
        "at which a request was due (default: each client sends again as soon as it is answered)",
    )
    parser.add_argument(
        "--input",
        type=_file,
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="send this array instead of a random one; may be given for several inputs",
    )
    parser.add_argument("--batch", type=_batch, metavar="N", help="first dimension of the random inputs")
    parser.add_argument(
        "--timeout", type=_positive, default=TIMEOUT_S, help=f"seconds for each answer ({TIMEOUT_S:g})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args(arguments)


def title(options: argparse.Namespace, inputs: Mapping[str, np.ndarray]) -> str:
    """What is about to happen; printed first."""
    over = f"gRPC, {options.grpc}" if options.grpc else f"REST, {options.rest}"
    clients = "1 client" if options.clients == 1 else f"{options.clients} clients"
    rate = f", {options.rate:g} requests a second" if options.rate else ""
    sent = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
    return f"{options.model} over {over}: {clients}{rate}, {options.seconds:g} s; each sends {sent}"


async def run(options: argparse.Namespace) -> Run:
    """The whole load. Raises UnusableError."""
    if options.grpc:
        api: Api = GrpcApi(options.grpc, options.model, options.timeout)
    else:
        api = RestApi(options.rest, options.model, options.timeout)
    inputs = arrays(await api.inputs(), dict(options.input), options.batch)
    print(title(options, inputs), flush=True)
    run_ = Run(options.seconds, options.rate, options.timeout)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, run_.stop.set)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(api.client(inputs)) for _ in range(options.clients)]
        shown = asyncio.ensure_future(_show(run_))
        try:
            await run_.go(clients)
        finally:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)
    return run_


async def _show(run_: Run) -> None:
    """A progress bar, where the output is a terminal."""
    layout = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s"
    hidden = not sys.stdout.isatty()
    with tqdm(total=run_.seconds, disable=hidden, leave=False, bar_format=layout) as shown:
        while True:
            await asyncio.sleep(_SHOW_S)
            run_.note_time()
            outcome = run_.outcome
            p50 = 1e3 * outcome.latencies.percentile_s(50)
            shown.set_description_str(
                f"{outcome.rate:.0f}/s p50 {p50:.2f} ms, {outcome.errors.total()} errors"
            )
            shown.update(min(outcome.seconds, run_.seconds) - shown.n)


def main() -> int:
    """The process. Returns its exit code."""
    options = parse(sys.argv[1:])
    try:
        run_ = asyncio.run(run(options))
    except UnusableError as error:
        print(f"perf.load: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the load has begun
        return 128 + signal.SIGINT
    outcome = run_.outcome
    print(text_of(outcome))
    if options.json is not None:
        options.json.write_text(json.dumps(document(outcome, _options(options)), indent=1) + "\n")
    return 0 if outcome.latencies.count and not outcome.errors else 1


def _options(options: argparse.Namespace) -> dict[str, Any]:
    found = {key: value for key, value in vars(options).items() if value not in (None, [])}
    found.pop("json", None)
    if "input" in found:
        found["input"] = {name: str(path) for name, path in options.input}
    return found


if __name__ == "__main__":
    sys.exit(main())
