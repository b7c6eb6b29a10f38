"""F19: live sessions are opened with bad tickets, from foreign pages, stalled, fed with garbage; does any of it work?

Tickets that were used, have expired or were altered; handshakes of foreign origins with a ticket that is good; clients
that stop to read or to speak, each kind from an address of its own; and messages drawn at random, in frames of the
WebSocket that are well-formed or not. Hostile names and file names are for the pages that show them.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import string
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import websockets
from tests.faces import portrait

from chaos.outcome import Bar, Outcome, Plan
from chaos.probe import run_probe
from chaos.service import run_service
from vultus.live.close_codes import CloseCode
from vultus.live.protocol import HEADER

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator

    from chaos.client import Client
    from chaos.service import Service

BAR = "0 accepted; stalled closed ≤ 20 s, others' p99 ≤ 1.5 ×; 0 unhandled"
CLOSED_BAR_S, LATENCY_BAR = 20.0, 1.5
SETTINGS = {"LIVE__MAX_SESSIONS": "1000", "LIVE__MAX_SESSIONS_PER_KEY": "1000"}
EXPIRES_AFTER_S = 32.0
OBSERVED_S, OBSERVED_SHORT_S = 34.0, 26.0
AT_ONCE = 16
MESSAGES_PER_CONNECTION = 12
NO_PICTURE = bytes(4096)
"""Answered without an analysis: what stalled callers cost is measured, not what frames do."""

PROTOCOL = websockets.Subprotocol("vultus.live.v1")
ALPHABET = string.ascii_letters + string.digits + "-_"
FRAME_PREFIXES = (b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"RIFF\x10\x00\x00\x00WEBP", b"\x89PNG\r\n")
WORDS = ("type", "hello", "bye", "ticket", "resume_token", "welcome", "result", "sequence", "\u202e", "\x00", "💣")
HANDLED = {int(code) for code in CloseCode} | {1002, 1006, 1007, 1008}
"""1002, 1007 and 1008 are the WebSocket's own answers to what is none; 1006 stands for a connection that was cut."""


async def measure(plan: Plan) -> Outcome:
    """Try the four things one after the other on one server."""
    outcome, chance = Outcome(), plan.make_random()
    async with run_service(SETTINGS) as service, service.open_client() as client:
        pid = service.pid
        await _try_tickets(service, client, plan, chance, outcome)
        await _try_origins(service, client, plan, chance, outcome)
        await _stall(service, client, plan, outcome)
        await _send_garbage(service, client, plan, chance, outcome)
        outcome.check(service.pid == pid and await service.fetch_readiness() == 200, "the server is not ready")
        log = service.read_log()
        traces = Counter(re.findall(r"^\w[\w.]*(?:Error|Exception|Disconnected)\b.*", log, re.MULTILINE))
        unhandled = sum(log.count(words) for words in ("Traceback", "failed unforeseen", "Exception in ASGI"))
        outcome.bars.append(Bar("unhandled errors in the log", unhandled, 0))
        outcome.failures += [f"in the log, {count} times: {trace}" for trace, count in traces.items()]
    return outcome


async def _make_ticket(client: Client) -> str:
    answer = await client.http.post("/v1/live/tickets", json={})
    return str(answer.raise_for_status().json()["ticket"])


async def _open_session(service: Service, ticket: str, origin: str | None = None) -> tuple[bool, int]:
    """Return whether a ticket opened a session, and the close code, or the status of the refused handshake."""
    protocols = [PROTOCOL, websockets.Subprotocol(f"ticket.{ticket}")]
    address = f"ws://127.0.0.1:{service.port}/v1/live"
    headers = {} if origin is None else {"Origin": origin}
    try:
        async with websockets.connect(
            address, subprotocols=protocols, proxy=None, additional_headers=headers, compression=None
        ) as live:
            await live.recv()
            return True, 1000
    except websockets.ConnectionClosed as closed:
        return False, closed.rcvd.code if closed.rcvd else 1006
    except websockets.InvalidStatus as refused:
        return False, refused.response.status_code


async def _run_all(calls: Iterator[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Return what calls return, a few of them at once."""
    results: list[Any] = []

    async def work() -> None:
        for call in calls:
            results.append(await call())

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return results


async def _try_tickets(service: Service, client: Client, plan: Plan, chance: random.Random, outcome: Outcome) -> None:
    """Replay tickets, alter them, and come with them too late."""
    expiring = [await _make_ticket(client) for _ in range(plan.choose(200, 0))]
    made_at = time.monotonic()
    replayed = [await _make_ticket(client) for _ in range(plan.choose(400, 10))]
    opened = await _run_all(partial(_open_session, service, one) for one in replayed)
    outcome.require_control(all(accepted for accepted, _ in opened), "tickets that are good open sessions")
    altered = [_alter(await _make_ticket(client), chance) for _ in range(plan.choose(400, 10))]
    if expiring:
        await asyncio.sleep(max(0.0, made_at + EXPIRES_AFTER_S - time.monotonic()))
    bad = [*replayed, *altered, *expiring]
    codes = Counter[int]()
    for accepted, code in await _run_all(partial(_open_session, service, one) for one in bad):
        codes[code] += 1
        outcome.check(not accepted, "a ticket that was used, was altered or has expired opened a session")
    outcome.check(set(codes) == {CloseCode.UNAUTHENTICATED}, f"close codes of bad tickets: {dict(codes)}")
    outcome.notes.append(f"{len(replayed)} replayed, {len(altered)} altered and {len(expiring)} expired tickets")


def _alter(ticket: str, chance: random.Random) -> str:
    """Change, swap, drop or add a character."""
    at = chance.randrange(len(ticket))
    other = chance.choice([one for one in ALPHABET if one != ticket[at]])
    changed = ticket[:at] + other + ticket[at + 1 :]
    return chance.choice([changed, changed, changed, ticket[:at] + ticket[at + 1 :], ticket + other, ticket[:-1]])


async def _try_origins(service: Service, client: Client, plan: Plan, chance: random.Random, outcome: Outcome) -> None:
    """Come from foreign pages with a ticket that is good, which stays good."""
    own = f"http://127.0.0.1:{service.port}"
    kinds: list[Callable[[str], str]] = [
        lambda word: f"https://{word}.test",
        lambda word: f"{own}.{word}.test",
        lambda word: f"http://{word}@127.0.0.1:{service.port}",
        lambda word: f"http://{word}.127.0.0.1:{service.port}",
        lambda _: f"https://127.0.0.1:{service.port}",
        lambda _: f"http://127.0.0.1:{service.port + 1}",
        lambda _: "http://127.0.0.1",
        lambda _: f"http://localhost:{service.port}",
        lambda _: "null",
        lambda _: "file://",
        lambda word: f"chrome-extension://{word}",
        lambda _: f"{own}/",
        lambda _: f"{own} {own}",
    ]
    ticket = await _make_ticket(client)
    words = ["".join(chance.choices(string.ascii_lowercase, k=8)) for _ in range(plan.choose(200, 26))]
    origins = [kinds[at % len(kinds)](word) for at, word in enumerate(words)]
    statuses = Counter[int]()
    for accepted, status in await _run_all(partial(_open_session, service, ticket, one) for one in origins):
        statuses[status] += 1
        outcome.check(not accepted, "a page of a foreign origin opened a session")
    outcome.check(set(statuses) == {403}, f"statuses of foreign origins: {dict(statuses)}")
    outcome.require_control((await _open_session(service, ticket, own))[0], "the own origin is accepted")
    outcome.notes.append(f"{len(origins)} handshakes of foreign origins with a good ticket")


async def _stall(service: Service, client: Client, plan: Plan, outcome: Outcome) -> None:
    """Open sessions that do not read, do not speak, or end in the middle of a frame."""
    count = plan.choose(50, 5)
    quiet = await run_probe(service.port, client_key(client), plan.choose(15, 2))
    observed_s = OBSERVED_SHORT_S if plan.short else OBSERVED_S
    picture = portrait()
    kinds = ("no ticket", "reads nothing", "sends and reads nothing", "half a frame")
    holding = [
        asyncio.create_task(_hold(service, await _make_ticket(client), at, picture))
        for at in range(len(kinds))
        for _ in range(count)
    ]
    watching = asyncio.create_task(_watch(service, kinds, observed_s))
    served = await run_probe(service.port, client_key(client), plan.choose(12, 3))
    lasted = await watching
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    outcome.require_control(
        all(len(times) > count / 2 for times in lasted.values()),
        f"stalled sockets seen open: { {kind: len(times) for kind, times in lasted.items()} }",
    )
    for kind, times in lasted.items():
        for one in times:
            outcome.check(one < observed_s - 3, f"{kind}: still open")
    outcome.check(set(served.statuses) == {"200"}, f"others beside stalled sockets: {served.statuses}")
    longest = {kind: max(times) for kind, times in lasted.items()}
    outcome.bars.append(Bar("longest stalled socket, s", max(longest.values()), CLOSED_BAR_S, timed=True))
    ratio = served.p99_ms / quiet.p99_ms
    outcome.bars.append(Bar("p99 of others, times the quiet one", ratio, LATENCY_BAR, timed=True))
    outcome.notes.append(
        f"{len(holding)} stalled sockets; p99 {quiet.p99_ms:.0f} ms quiet, {served.p99_ms:.0f} ms beside"
    )


def client_key(client: Client) -> str:
    """Return the key that a client sends."""
    return client.http.headers["Authorization"].removeprefix("Bearer ")


def _get_address(at: int) -> str:
    return f"127.0.2.{at + 1}"


async def _hold(service: Service, ticket: str, at: int, picture: bytes) -> None:
    """Open a WebSocket from an address of the kind, and stall in the kind's way."""
    plain = socket.socket()
    plain.setblocking(False)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.bind((_get_address(at), 0))
    with suppress(OSError):
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", service.port))
        reader, writer = await asyncio.open_connection(sock=plain, limit=4096)
        try:
            writer.write(_build_handshake("" if at == 0 else f", ticket.{ticket}"))
            await reader.readuntil(b"\r\n\r\n")
            if at > 1:
                await reader.readuntil(b'"welcome"')  # a stranger is not let send so much
            if at == 3:
                writer.write(_build_frame(0x2, HEADER.pack(1, 0) + picture)[:5000])
            sequence = 0
            while at == 2:
                sequence += 1
                writer.write(_build_frame(0x2, HEADER.pack(sequence, 0) + NO_PICTURE))
                await asyncio.sleep(0.2)
            await asyncio.sleep(OBSERVED_S)
        finally:
            writer.transport.abort()


async def _watch(service: Service, kinds: tuple[str, ...], observed_s: float) -> dict[str, list[float]]:
    """Return how long connections of each kind last, as the server's process sees them, seconds."""
    started, process = time.monotonic(), psutil.Process(service.pid)
    addresses = {_get_address(at): kind for at, kind in enumerate(kinds)}
    seen: dict[tuple[str, int], tuple[float, float]] = {}
    while (now := time.monotonic() - started) < observed_s:
        for one in await asyncio.to_thread(process.net_connections, "tcp"):
            if one.raddr and one.raddr.ip in addresses:
                key = (one.raddr.ip, one.raddr.port)
                seen[key] = (seen.get(key, (now, now))[0], now)
        await asyncio.sleep(0.25)
    lasted: dict[str, list[float]] = {kind: [] for kind in kinds}
    for (address, _), (first, last) in seen.items():
        lasted[addresses[address]].append(last - first)
    return lasted


async def _send_garbage(service: Service, client: Client, plan: Plan, chance: random.Random, outcome: Outcome) -> None:
    """Send messages drawn at random, until as many are sent as planned."""
    codes, sent = Counter[int](), 0

    async def talk() -> int:
        ticket = None if chance.random() < 0.1 else await _make_ticket(client)
        messages = [_draw_message(chance, at) for at in range(1, MESSAGES_PER_CONNECTION + 1)]
        code, count = await _say(service, ticket, messages)
        codes[code] += 1
        return count

    wanted = plan.choose(50_000, 600)

    async def work() -> None:
        nonlocal sent
        while sent < wanted:
            count = await talk()
            sent += count

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    for code, count in codes.items():
        outcome.tries += count
        if code not in HANDLED:
            outcome.failures.append(f"closed with {code}, {count} times")
    outcome.require_control(codes[CloseCode.MALFORMED] > 0, "what is none of the protocol is refused")
    found = ", ".join(f"{code}: {count:,}" for code, count in sorted(codes.items()))
    outcome.notes.append(f"{sent:,} messages over {codes.total():,} connections, closed with {found}")


async def _say(service: Service, ticket: str | None, messages: list[bytes]) -> tuple[int, int]:
    """Send frames of a WebSocket one after the other until it is closed; return the code, and how many were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    count = 0
    received = b""
    try:
        writer.write(_build_handshake("" if ticket is None else f", ticket.{ticket}"))
        await reader.readuntil(b"\r\n\r\n")
        if ticket is not None:
            received += await asyncio.wait_for(reader.read(2**16), 10)  # the greeting
        for message in messages:
            writer.write(message)
            await writer.drain()
            count += 1
            with suppress(TimeoutError):
                if not (part := await asyncio.wait_for(reader.read(2**16), 0.005)):
                    break
                received += part
        writer.write(_build_frame(0x8, (1000).to_bytes(2, "big")))
        async with asyncio.timeout(15):
            while part := await reader.read(2**16):
                received += part
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()
    return _find_close_code(received), max(count, 1)


def _find_close_code(received: bytes) -> int:
    """Return the code in the close frame among frames of a server; 1006 without one."""
    at = 0
    while at + 2 <= len(received):
        opcode, length, at = received[at] & 0x0F, received[at + 1], at + 2
        if length == 126:
            length, at = int.from_bytes(received[at : at + 2], "big"), at + 2
        elif length == 127:
            length, at = int.from_bytes(received[at : at + 8], "big"), at + 8
        if opcode == 0x8:
            return int.from_bytes(received[at : at + 2], "big") if length else 1005
        at += length
    return 1006


def _draw_message(chance: random.Random, at: int) -> bytes:
    """Return a frame of a WebSocket with a message that is wrong in some way, or a frame that is none."""
    kind = chance.randrange(20)
    if kind < 14:  # a picture that is none, in a frame that may go on
        content = chance.choice(FRAME_PREFIXES) + chance.randbytes(chance.randrange(200))
        return _build_frame(0x2, HEADER.pack(at, chance.choice((0, 1_700_000_000_000, 2**40))) + content)
    if kind < 16:
        return _build_frame(0x2, chance.randbytes(chance.randrange(64)))
    if kind < 18:
        return _build_frame(0x1, _draw_text(chance).encode("utf-8", "surrogatepass"))
    if kind == 18:
        return _build_frame(chance.choice((0x0, 0x1, 0x2, 0x9, 0xA)), chance.randbytes(chance.randrange(140)))
    return chance.randbytes(chance.randrange(1, 40))


def _draw_text(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return "".join(chance.choice(WORDS + tuple('{}[]":,0')) for _ in range(chance.randrange(20)))
    member = f'"{chance.choice(WORDS)}": {chance.choice(("null", "1e999", "[]", "{}", chr(34) * 2, "-0"))}'
    return f'{{"type": "{chance.choice(WORDS)}", {member}}}'


def _build_handshake(secret: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {PROTOCOL}{secret}\r\n\r\n"
    ).encode()


def _build_frame(opcode: int, payload: bytes) -> bytes:
    """Return a masked frame, the last of its message; the mask is zero."""
    length = len(payload)
    head = bytes([0x80 | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 2**16:
        head += b"\xfe" + length.to_bytes(2, "big")
    else:
        head += b"\xff" + length.to_bytes(8, "big")
    return head + bytes(4) + payload
