"""F7: hundreds of connections send nothing, a byte a second, or never read; are they closed, and is a caller served?

Every kind comes from an address of its own on loopback, all at once. How long they last is what the server's process
has open, not what the callers see. Stalled WebSockets are part of F19.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from chaos.outcome import Bar, Outcome, Plan
from chaos.probe import run_probe
from chaos.service import Service, run_service

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Caller = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Coroutine[None, None, None]]

BAR = "closed ≤ 20 s, a caller's p99 ≤ 1.5 ×, health always answers"
CLOSED_BAR_S = 20.0
LATENCY_BAR = 1.5
OBSERVED_S, OBSERVED_SHORT_S = 34.0, 22.0
FLEETING = {"endless header", "slow bodies without a key"}
"""Kinds whose connections the server may close before they are seen."""

RECEIVE_BUFFER = 4096
ENDLESS_HEAD_BYTES = 32 * 2**20

DOWNLOAD = "/docs-assets/swagger-ui-bundle.js"
"""Over a megabyte, without a key: four of them do not fit into the system's buffers."""

REQUEST = "{method} {path} HTTP/1.1\r\nHost: vultus\r\nX-API-Key: {key}\r\n"


async def _stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    await reader.read()


async def _send_slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    writer.write(b"GET /v1/version HTTP/1.1\r\nHost: vultus\r\nX-Slow: ")
    await _drip(reader, writer)


async def _send_slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    head = REQUEST.format(method="POST", path="/v1/recognize", key=key)
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n\r\n--b".encode())
    await _drip(reader, writer)


async def _send_slow_body_without_key(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    await _send_slow_body(reader, writer, "")


async def _send_unfinished_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    writer.write(REQUEST.format(method="GET", path="/v1/version", key=key).encode() + b"\r\nGET /v1/ver")
    await _drip(reader, writer)


async def _read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    writer.write((REQUEST.format(method="GET", path=DOWNLOAD, key=key) + "\r\n").encode() * 4)
    await asyncio.sleep(OBSERVED_S)


async def _send_endless_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    writer.write(b"GET /v1/version HTTP/1.1\r\nHost: vultus\r\nX-Endless: ")
    for _ in range(ENDLESS_HEAD_BYTES // 2**16):
        writer.write(b"a" * 2**16)
        await writer.drain()
    while True:
        writer.write(b"a" * 64)
        await writer.drain()
        await asyncio.sleep(0.001)


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof():
        writer.write(b"a")
        await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await reader.read(2**16)


CALLERS: dict[str, Caller] = {
    "silent": _stay_silent,
    "slow heads": _send_slow_head,
    "slow bodies": _send_slow_body,
    "slow bodies without a key": _send_slow_body_without_key,
    "unfinished second requests": _send_unfinished_second,
    "unread downloads": _read_nothing,
    "endless header": _send_endless_header,
}


def get_address(at: int) -> str:
    """Return the address on loopback that a kind of caller comes from."""
    return f"127.0.1.{at + 1}"


async def measure(plan: Plan) -> Outcome:
    """Open everything within a few seconds, and observe."""
    outcome, count = Outcome(), plan.choose(500, 20)
    opening_s, held_s = (6.0, 8.0) if not plan.short else (1.0, 2.0)
    _raise_descriptor_limit()
    chance = plan.make_random()
    async with run_service() as service, service.open_client() as client:
        _, key = await client.create_key(role="recognize")
        quiet = await run_probe(service.port, key, plan.choose(15, 1))
        observed_s = OBSERVED_SHORT_S if plan.short else OBSERVED_S
        watched = asyncio.create_task(_watch(service, outcome, count, observed_s))
        holding = [
            asyncio.create_task(_hold(service.port, at, caller, key, chance.uniform(0, opening_s)))
            for at, (kind, caller) in enumerate(CALLERS.items())
            for _ in range(1 if kind == "endless header" else count)
        ]
        opening = await run_probe(service.port, key, opening_s)
        served = await run_probe(service.port, key, held_s)
        await watched
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
    for when, found in (("while they opened", opening), ("while they were open", served)):
        outcome.check(set(found.health) == {"200"}, f"readiness {when}: {found.health}")
        outcome.check(set(found.statuses) == {"200"}, f"a caller {when}: {found.statuses}")
    ratio = served.p99_ms / quiet.p99_ms
    outcome.bars.append(Bar("p99 of a caller, times the quiet one", ratio, LATENCY_BAR, timed=True))
    latencies = f"{quiet.p99_ms:.0f} ms quiet, {opening.p99_ms:.0f} ms while they open, {served.p99_ms:.0f} ms then"
    outcome.notes.append(f"{len(holding)} connections; p99 {latencies}")
    return outcome


async def _hold(port: int, at: int, caller: Caller, key: str, delay_s: float) -> None:
    """Open a connection after a while and keep it as long as the server lets it."""
    await asyncio.sleep(delay_s)
    with suppress(OSError):
        plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        plain.bind((get_address(at), 0))
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=plain, limit=RECEIVE_BUFFER)
        try:
            await caller(reader, writer, key)
        finally:
            writer.transport.abort()


async def _watch(service: Service, outcome: Outcome, count: int, observed_s: float) -> None:
    """Record how long connections last, as the server's process sees them."""
    started, process = time.monotonic(), psutil.Process(service.pid)
    kinds = {get_address(at): kind for at, kind in enumerate(CALLERS)}
    seen: dict[tuple[str, int], list[float]] = {}
    while (now := time.monotonic() - started) < observed_s:
        for one in process.net_connections("tcp"):
            if one.raddr and one.raddr.ip in kinds:
                seen.setdefault((one.raddr.ip, one.raddr.port), []).append(now)
        await asyncio.sleep(0.25)
    most = Counter(kinds[address] for address, _ in seen)
    longest = {
        kind: max((times[-1] - times[0] for (address, _), times in seen.items() if kinds[address] == kind), default=0.0)
        for kind in CALLERS
    }
    for kind, lasted_s in longest.items():
        outcome.check(lasted_s < observed_s - 3, f"{kind}: still open after {lasted_s:.0f} s")
    outcome.tries += len(seen) - len(longest)
    lasting = {kind: most[kind] for kind in CALLERS if kind not in FLEETING}
    outcome.require_control(min(lasting.values()) > count / 2, f"connections open: {dict(most)}")
    outcome.bars.append(Bar("longest connection, s", max(longest.values()), CLOSED_BAR_S, timed=True))
    outcome.notes.append("longest by kind, s: " + ", ".join(f"{kind} {lasted:.0f}" for kind, lasted in longest.items()))


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
