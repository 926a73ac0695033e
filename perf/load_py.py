"""Load by Python, where h2load is not installed: processes of asyncio clients, grpc.aio or plain HTTP/1.1.

It takes several times the CPU that h2load takes, and on the server's cores: its figures are lower and are not to be
compared with h2load's.

    parent ── start ──▶ child (connects) ── "ready" ──▶ parent ── "go" to all ──▶ child ── samples, a file ──▶ parent
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import uvloop

from common.process import die_with_parent
from perf.stats import Samples, concatenate
from perf.target import GRPC_PREFIX_BYTES, HOST, ROOT, LoadFailedError, Target

PROCESSES = 2

Send = Callable[[], Awaitable[bool]]
"""One request; whether it was answered rightly."""


def run(target: Target, clients: int, requests: int, timeout_s: float, directory: Path) -> Samples:
    """Send `requests` by `clients`; files go to `directory`. Raises LoadFailedError."""
    count = min(PROCESSES, clients)
    shares = [(_share(clients, count, i), _share(requests, count, i)) for i in range(count)]
    files = [directory / f"load-{i}.npy" for i in range(count)]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(_start(target, *share, file))
            for share, file in zip(shares, files, strict=True)
        ]
        try:
            for child in children:
                _expect_ready(child)
            for child in children:
                _go(child)
            for child in children:
                child.wait(timeout_s)
        except (subprocess.TimeoutExpired, BrokenPipeError) as error:
            raise LoadFailedError(f"the Python generator did not end within {timeout_s:.0f} s") from error
        finally:
            for child in children:
                child.kill()
    return concatenate([_read(file) for file in files])


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (index < total % parts)


def _start(target: Target, clients: int, requests: int, file: Path) -> subprocess.Popen[str]:
    file.unlink(missing_ok=True)
    line = [
        sys.executable,
        "-m",
        "perf.load_py",
        target.kind,
        str(target.port),
        target.path,
        str(target.body),
    ]
    line += [str(target.answer_bytes), str(clients), str(requests), str(file)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _expect_ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise LoadFailedError("the Python generator did not start")


def _go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def _read(file: Path) -> Samples:
    try:
        rows = np.load(file)
    except OSError as error:
        raise LoadFailedError("the Python generator failed") from error
    return Samples(rows[:, 0], rows[:, 1], rows[:, 2].astype(np.bool_))


@contextlib.asynccontextmanager
async def _grpc_sender(target: Target) -> AsyncIterator[Send]:
    """A client with a connection of its own."""
    message = target.body.read_bytes()[GRPC_PREFIX_BYTES:]
    expected = target.answer_bytes - GRPC_PREFIX_BYTES if target.answer_bytes else None
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    async with grpc.aio.insecure_channel(f"{HOST}:{target.port}", options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(target.path)

        async def send() -> bool:
            try:
                answer = await call(message)
            except grpc.aio.AioRpcError:
                return False
            return expected is None or len(answer) == expected

        await channel.channel_ready()
        yield send


@contextlib.asynccontextmanager
async def _rest_sender(target: Target) -> AsyncIterator[Send]:
    """A client with a connection of its own, kept alive."""
    body = target.body.read_bytes()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {HOST}:{target.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection(HOST, target.port)

    async def send() -> bool:
        try:
            writer.write(head + body)
            await writer.drain()
            status, length = await _read_head(reader)
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return False
        return status == 200 and length == (target.answer_bytes or length)

    try:
        yield send
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and Content-Length of an answer. Raises ValueError where there is none."""
    status_line, _, fields = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
    for field in fields.splitlines():
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            return int(status_line.split()[1]), int(value)
    raise ValueError("an answer without a length")


async def _client(send: Send, requests: int) -> list[tuple[float, float, bool]]:
    rows = []
    for _ in range(requests):
        start = time.monotonic()
        ok = await send()
        rows.append((start, time.monotonic() - start, ok))
    return rows


async def _generate(target: Target, clients: int, requests: int, file: Path) -> None:
    sender = _grpc_sender if target.kind == "grpc" else _rest_sender
    async with contextlib.AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(sender(target)) for _ in range(clients)]
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        work = [_client(send, _share(requests, clients, i)) for i, send in enumerate(senders)]
        results = await asyncio.gather(*work)
    np.save(file, np.array([row for rows in results for row in rows], dtype=np.float64).reshape(-1, 3))


def main() -> None:
    """A child."""
    parser = argparse.ArgumentParser(description="one process of the Python load generator")
    parser.add_argument("kind", choices=["grpc", "rest"])
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("answer_bytes", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("requests", type=int)
    parser.add_argument("file", type=Path)
    a = parser.parse_args()
    die_with_parent(os.getppid())
    uvloop.run(
        _generate(Target(a.kind, a.port, a.path, a.body, a.answer_bytes), a.clients, a.requests, a.file)
    )


if __name__ == "__main__":
    main()
