"""How many frames a second does a live client have answered, how late, and what does it cost those who send photos?

The real server in a process of its own; this process is all clients, each with a camera of 30 frames a second, 640×480,
in which two people move to and fro. A client sends every frame, whether or not the last one was answered: the newest
wins, and the server counts those it drops. Latency is from a frame sent to its answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import websockets
from tests.clips import ASTRONAUT, Clip, Walker, portrait_of, swing

from benchmarks.load import Connection, build_photo_request, call_until
from benchmarks.photos import build_portrait_sample
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from benchmarks.server import run_server
from benchmarks.serving import CONSENT
from vultus.live.protocol import HEADER

if TYPE_CHECKING:
    from benchmarks.server import Server

SECONDS = 20.0
WARM_UP_S = 2.0
CLIENTS = (1, 4, 8)
PHOTO_CLIENTS = 4
"""Live clients beside which photos are sent."""

CAMERA_FPS = 30.0
CLIP_S = 4.0
FACES = (ASTRONAUT, 3)
MODELS_VARIABLE = "VULTUS_BENCH_MODELS"
"""Folder with the weights of the recommended pack; without it the built-in networks are measured."""

RATE_BAR, ONE_P95_BAR_MS, EIGHT_P95_BAR_MS, FAIRNESS_BAR, PHOTO_BAR, NAME_BAR_S = 20.0, 100.0, 250.0, 0.8, 2.0, 0.8


@dataclass(slots=True)
class _Viewer:
    """A live client and what it saw.

    Attributes:
        sent: When each frame was sent, by sequence.
        answers: When each answer came, and after how many milliseconds.
        dropped: As the server says.
        named_after_s: From the first frame sent to the first answer with a name.
    """

    sent: dict[int, float] = field(default_factory=dict)
    answers: list[tuple[float, float]] = field(default_factory=list)
    dropped: int = 0
    named_after_s: float | None = None
    named_wrong: int = 0


def measure(seconds: float = SECONDS) -> list[Measurement]:
    """Return one line per number of clients, and one for photos beside them."""
    folder = os.environ.get(MODELS_VARIABLE)
    with run_server(settings={"MODELS__DIR": folder} if folder else {}) as server:
        return asyncio.run(_measure(server, seconds))


async def _measure(server: Server, seconds: float) -> list[Measurement]:
    frames = [frame.content for _, frame in _draw_clip().list_frames(CAMERA_FPS)]
    for face in FACES:
        await _register(server, face)
    about = {"seconds": seconds, "pack": await _find_pack(server), "frame_bytes": round(np.mean([*map(len, frames)]))}
    lines = []
    for clients in CLIENTS:
        print(f"live: clients: {clients}", flush=True)
        lines.append(await _measure_clients(server, frames, clients, seconds))
    lines.append(await _measure_photos(server, frames, seconds))
    return [about | line for line in lines]


def _draw_clip() -> Clip:
    """Two faces that sway in front of the camera, in a loop without a jump."""
    walkers = (
        Walker(FACES[1], swing((200, 240), (60, 20), CLIP_S), 170),
        Walker(FACES[0], swing((440, 240), (60, 20), CLIP_S, phase=1.0), 190),
    )
    return Clip(walkers, CLIP_S)


async def _register(server: Server, face: int) -> None:
    connection = await Connection.open(server.port)
    request = build_photo_request("/v1/register", server.key, portrait_of(face), name=f"face {face}", **CONSENT)
    answer = await connection.send_request(request)
    await connection.close()
    if answer.status != 201:
        raise RuntimeError(f"registration failed: {answer.body!r}")


async def _find_pack(server: Server) -> str:
    answer = await _call(server, "GET", "/v1/collections/default")
    return str(answer["contract_id"])


async def _call(server: Server, method: str, path: str, body: object = None) -> Any:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = await Connection.open(server.port)
    answer = await connection.send_request(head.encode() + content)
    await connection.close()
    return answer.json()


async def _watch(server: Server, frames: list[bytes], offset: int, until: float) -> _Viewer:
    """Send the clip in a loop at the camera's rate until a time, and note the answers."""
    viewer = _Viewer()
    ticket = (await _call(server, "POST", "/v1/live/tickets", {}))["ticket"]
    protocols = [websockets.Subprotocol("vultus.live.v1"), websockets.Subprotocol(f"ticket.{ticket}")]
    address = f"ws://127.0.0.1:{server.port}/v1/live"
    async with websockets.connect(address, subprotocols=protocols, proxy=None, compression=None) as socket:
        await socket.recv()
        receiving = asyncio.create_task(_receive(socket, viewer))
        started = time.perf_counter()
        sequence = 0
        while (now := time.perf_counter()) < until:
            sequence += 1
            viewer.sent[sequence] = now
            content = frames[(offset + sequence) % len(frames)]
            await socket.send(HEADER.pack(sequence, int(time.time() * 1e3)) + content)
            await asyncio.sleep(max(0.0, started + sequence / CAMERA_FPS - time.perf_counter()))
        receiving.cancel()
        await socket.send('{"type": "bye"}')
    return viewer


async def _receive(socket: websockets.ClientConnection, viewer: _Viewer) -> None:
    async for text in socket:
        now, message = time.perf_counter(), json.loads(text)
        viewer.dropped += message["dropped"]
        if message["type"] != "result":
            continue
        viewer.answers.append((now, (now - viewer.sent[message["sequence"]]) * 1e3))
        if viewer.named_after_s is None and any(track["person"] for track in message["tracks"]):
            viewer.named_after_s = now - viewer.sent[1]


async def _watch_all(server: Server, frames: list[bytes], clients: int, seconds: float) -> tuple[list[_Viewer], float]:
    """Return what clients saw, and when the warm-up was over."""
    settled = time.perf_counter() + WARM_UP_S
    offsets = [len(frames) * at // clients for at in range(clients)]
    viewers = await asyncio.gather(*(_watch(server, frames, offset, settled + seconds) for offset in offsets))
    return list(viewers), settled


async def _measure_clients(server: Server, frames: list[bytes], clients: int, seconds: float) -> Measurement:
    before, started = server.measure_cpu_s(), time.perf_counter()
    viewers, settled = await _watch_all(server, frames, clients, seconds)
    took_s, after = time.perf_counter() - started, server.measure_cpu_s()
    rates = [sum(at >= settled for at, _ in viewer.answers) / seconds for viewer in viewers]
    latencies = [ms for viewer in viewers for at, ms in viewer.answers if at >= settled]
    names = [viewer.named_after_s for viewer in viewers if viewer.named_after_s is not None]
    return {
        "part": "clients",
        "clients": clients,
        "per_s": round(sum(rates), 2),
        "least_per_s": round(min(rates), 2),
        "fairness": round(min(rates) / (sum(rates) / clients), 3),
        "dropped_share": round(
            sum(viewer.dropped for viewer in viewers) / sum(len(viewer.sent) for viewer in viewers), 3
        ),
        "named": len(names),
        "name_s": round(float(np.median(names)), 3) if names else None,
        "cpu": {name: round((after[name] - before[name]) / took_s, 2) for name in after},
        **compute_percentiles(latencies),
    }


async def _measure_photos(server: Server, frames: list[bytes], seconds: float) -> Measurement:
    """Send photos one after the other, alone and beside live clients."""
    request = build_photo_request("/v1/recognize", server.key, build_portrait_sample().content)
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, clients in (("alone", 0), ("beside", PHOTO_CLIENTS)):
        print(f"live: photos {name}", flush=True)
        watching = asyncio.create_task(_watch_all(server, frames, clients, seconds)) if clients else None
        await asyncio.sleep(WARM_UP_S)
        connection = await Connection.open(server.port)
        answers = await call_until(lambda: connection.send_request(request), time.perf_counter() + seconds - 0.5)  # noqa: B023
        await connection.close()
        served = [answer.ms for answer in answers if answer.status == 200]
        found[name] = {**compute_percentiles(served), "refused": len(answers) - len(served)}
        if watching:
            viewers, settled = await watching
            rates = [sum(at >= settled for at, _ in viewer.answers) / seconds for viewer in viewers]
            found[name]["frames_per_s"] = round(sum(rates), 2)
    return {"part": "photos", "clients": PHOTO_CLIENTS, **found}


def render(lines: list[Measurement]) -> str:
    """Return the tables of a run."""
    rows = [
        (
            line["clients"],
            f"{line['per_s'] / line['clients']:.1f}",
            f"{line['fairness']:.0%}",
            f"{line['dropped_share']:.0%}",
            format_milliseconds(line["p50_ms"]),
            format_milliseconds(line["p95_ms"]),
            "–" if line["name_s"] is None else f"{line['name_s']:.2f}",
            f"{line['cpu']['api']:.2f}",
            f"{line['cpu']['workers']:.2f}",
        )
        for line in lines
        if line["part"] == "clients"
    ]
    columns = ("clients", "frames/s each", "least of mean", "dropped", "p50 ms", "p95 ms", "named after s", "API cores")
    (photos,) = [line for line in lines if line["part"] == "photos"]
    alone, shared = photos["alone"], photos["beside"]
    ratio = shared["p99_ms"] / alone["p99_ms"]
    return (
        f"Collection with the embedding space `{lines[0]['pack']}`; frames of {lines[0]['frame_bytes']:,} bytes at "
        f"{CAMERA_FPS:.0f} a second from every client.\n\n"
        f"{render_table((*columns, 'worker cores'), rows)}\n\n"
        f"Photos one after the other, alone: p50 {format_milliseconds(alone['p50_ms'])}, "
        f"p99 {format_milliseconds(alone['p99_ms'])} ms; beside {photos['clients']} live clients, which had "
        f"{shared['frames_per_s']:.0f} frames a second answered: p50 {format_milliseconds(shared['p50_ms'])}, p99 "
        f"{format_milliseconds(shared['p99_ms'])} ms, {ratio:.2f} times as long, {shared['refused']} refused."
        f"\n\n{_judge(lines, ratio)}"
    )


def _judge(lines: list[Measurement], photo_ratio: float) -> str:
    by_clients = {line["clients"]: line for line in lines if line["part"] == "clients"}
    one, four, eight = (by_clients[clients] for clients in CLIENTS)
    held = {
        f"one client ≥ {RATE_BAR:.0f} frames a second": one["per_s"] >= RATE_BAR,
        f"p95 ≤ {ONE_P95_BAR_MS:.0f} ms": one["p95_ms"] <= ONE_P95_BAR_MS,
        f"of four the least ≥ {FAIRNESS_BAR:.0%} of the mean": four["fairness"] >= FAIRNESS_BAR,
        f"eight p95 ≤ {EIGHT_P95_BAR_MS:.0f} ms": eight["p95_ms"] <= EIGHT_P95_BAR_MS,
        f"photos beside four p99 ≤ {PHOTO_BAR:.0f} ×": photo_ratio <= PHOTO_BAR,
        f"a name within {NAME_BAR_S} s": one["name_s"] is not None and one["name_s"] <= NAME_BAR_S,
    }
    return "Bars: " + "; ".join(f"{bar} {'held' if is_held else '**not held**'}" for bar, is_held in held.items()) + "."
