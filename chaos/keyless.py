"""F6: what do callers without a key cost: bodies nobody asked for, endless heads, and keys that are not known?

Bodies and heads are sent as fast as the server takes them. Wrong, revoked and foreign keys are compared by the bytes of
their answers and by their time, one after the other in turns; each comes from an address of its own, since failures are
limited by address.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import socket
import statistics
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from chaos.outcome import Bar, Outcome, Plan
from chaos.service import Service, run_service

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from chaos.client import Client

BAR = "401 before the body, no memory, check ≤ 1 ms, wrong, revoked and foreign keys alike in body and time"
BODY_BYTES = 60_000_000
TAKEN_BAR_MIB, MEMORY_BAR_MIB, CHECK_BAR_MS, T_BAR = 4.0, 64.0, 1.0, 4.0
SEND_BUFFER = 2**16
GIVE_UP_S = 20.0


class Exchange(NamedTuple):
    """One request and what came back.

    Attributes:
        status: Of the answer; 0 without one.
        body: Of the answer.
        ms: Until it was complete.
        sent: Bytes that the server's side took, its system's buffers included.
    """

    status: int
    body: bytes
    ms: float
    sent: int


async def measure(plan: Plan) -> Outcome:
    """Send bodies and heads without a key, then keys that are refused."""
    outcome = Outcome()
    async with run_service() as service:
        idle = service.measure_memory_mib()
        done = asyncio.Event()
        peak = asyncio.create_task(service.watch_memory(done))
        await _send_bodies(service, plan.choose(100, 8), outcome)
        await _send_heads(service, plan.choose(20, 4), outcome)
        done.set()
        outcome.bars.append(Bar("memory beyond idle, MiB", await peak - idle, MEMORY_BAR_MIB))
        await _compare_keys(service, plan, outcome)
    return outcome


async def _send_bodies(service: Service, count: int, outcome: Outcome) -> None:
    """Send long bodies without a key; the answer must come before them, and the rest not be taken."""
    head = f"POST /v1/recognize HTTP/1.1\r\nHost: vultus\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
    waited = await asyncio.gather(*(_exchange(service.port, head) for _ in range(count)))
    for one in waited:
        outcome.check(one.status == 401, f"a head without a key and without its body is answered with {one.status}")
    pushed = await asyncio.gather(*(_exchange(service.port, head, BODY_BYTES) for _ in range(count)))
    for one in pushed:
        outcome.check(one.sent < BODY_BYTES, "a body without a key is taken to its end")
    outcome.bars.append(Bar("taken of a 60 MB body, MiB", max(one.sent for one in pushed) / 2**20, TAKEN_BAR_MIB))


async def _send_heads(service: Service, count: int, outcome: Outcome) -> None:
    """Send heads without an end, of one line and of many."""
    for line in (b"a" * 1000, b"X-Line: a\r\n" * 100):
        head = b"GET /v1/version HTTP/1.1\r\nHost: vultus\r\nX-First: "
        sent = await asyncio.gather(*(_exchange(service.port, head, BODY_BYTES, line) for _ in range(count)))
        for one in sent:
            outcome.check(one.sent < BODY_BYTES and one.status in {0, 400, 431}, f"an endless head: {one.status}")


async def _compare_keys(service: Service, plan: Plan, outcome: Outcome) -> None:
    rounds = plan.choose(300, 10)
    async with service.open_client() as admin:
        revoked = [await _make_revoked_key(admin) for _ in range(rounds)]  # one asked twice would be remembered
        for name in ("own", "foreign"):
            (await admin.http.post("/v1/collections", json={"name": name})).raise_for_status()
        _, bound = await admin.create_key(role="recognize", collections=["own"])
    chance = plan.make_random()
    requests = {
        "no key": lambda: _build("/v1/version", ""),
        "wrong": lambda: _build("/v1/version", f"vultus_{secrets.token_urlsafe(32)}"),
        "revoked": lambda: _build("/v1/version", revoked.pop()),
        "foreign": lambda: _build("/v1/collections/foreign", bound),
        "absent": lambda: _build("/v1/collections/missing", bound),
    }
    seen: dict[str, list[Exchange]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name in chance.sample(sorted(requests), len(requests)):
            seen[name].append(await _exchange(service.port, requests[name](), address=_draw_address(chance)))
    for one, other in (("wrong", "revoked"), ("foreign", "absent")):
        for first, second in zip(seen[one], seen[other], strict=True):
            outcome.check(_strip(first) == _strip(second), f"{one} {_strip(first)}, {other} {_strip(second)}")
        t = compute_welch_t([exchange.ms for exchange in seen[one]], [exchange.ms for exchange in seen[other]])
        outcome.bars.append(Bar(f"{one} and {other} keys, Welch's |t|", abs(t), T_BAR, timed=True))
    medians = {name: statistics.median(one.ms for one in exchanges) for name, exchanges in seen.items()}
    outcome.bars.append(Bar("check of a key, ms", medians["wrong"] - medians["no key"], CHECK_BAR_MS, timed=True))


async def _make_revoked_key(admin: Client) -> str:
    key_id, secret = await admin.create_key(role="recognize")
    (await admin.http.delete(f"/v1/keys/{key_id}")).raise_for_status()
    return secret


def _build(path: str, key: str) -> bytes:
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: vultus\r\n{authorization}Connection: close\r\n\r\n".encode()


def _draw_address(chance: random.Random) -> str:
    return f"127.{chance.randint(1, 250)}.{chance.randint(1, 250)}.{chance.randint(1, 250)}"


def _strip(exchange: Exchange) -> tuple[int, str]:
    """Return status and body without what differs in any two answers, and without the name that was asked for."""
    body = json.loads(exchange.body)
    body.pop("request_id", None)
    return exchange.status, json.dumps(body).replace("foreign", "missing")


def compute_welch_t(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Welch's t of two samples (Welch 1947), without the slowest hundredth, which are the machine's."""
    kept = [sorted(sample)[: max(2, math.ceil(0.99 * len(sample)))] for sample in (first, second)]
    means = [statistics.fmean(sample) for sample in kept]
    error = math.sqrt(sum(statistics.variance(sample) / len(sample) for sample in kept))
    return (means[0] - means[1]) / error if error else 0.0


async def _exchange(
    port: int, head: bytes, more: int = 0, part: bytes = bytes(2**14), address: str = "127.0.0.1"
) -> Exchange:
    """Send a head and up to `more` bytes after it, until the server closes; return what came back."""
    plain = socket.socket()
    plain.setblocking(False)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    plain.bind((address, 0))
    loop, started, sent = asyncio.get_running_loop(), time.perf_counter(), 0
    received = bytearray()
    with plain, suppress(OSError, TimeoutError):
        async with asyncio.timeout(GIVE_UP_S):
            await loop.sock_connect(plain, ("127.0.0.1", port))
            await loop.sock_sendall(plain, head)
            with suppress(OSError):  # the server has closed: what it said before is read below
                while sent < more:
                    await loop.sock_sendall(plain, part)
                    sent += len(part)
            while got := await loop.sock_recv(plain, 2**16):
                received += got
                if _is_complete(received):
                    break
    top, _, body = bytes(received).partition(b"\r\n\r\n")
    status = int(top.split(b" ", 2)[1]) if top else 0
    return Exchange(status, body, (time.perf_counter() - started) * 1e3, sent)


def _is_complete(received: bytearray) -> bool:
    top, end, body = bytes(received).partition(b"\r\n\r\n")
    length = top.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or 0)
