"""Sends pictures as a live session and prints who is in them: `VULTUS_KEY=… live_client.py http://host:8000 a.jpg …`.

Needs `pip install websockets`. Pictures are JPEG or WebP files; with a camera, send what it gives instead.
"""

import asyncio
import json
import os
import struct
import sys
import time
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

RESUMED = {None, 1006, 1011, 4440, 4443}


def make_ticket(server: str, key: str, **wanted: object) -> str:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/v1/live/tickets", json.dumps(wanted).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["ticket"]


async def watch(server: str, key: str, pictures: list[str]) -> None:
    address = server.replace("http", "ws", 1) + "/v1/live"
    secret, sequence = f"ticket.{make_ticket(server, key, collection='default')}", 0
    waiting = [Path(one).read_bytes() for one in pictures]
    while waiting:
        async with connect(address, subprotocols=["vultus.live.v1", secret]) as socket:
            try:
                welcome = json.loads(await socket.recv())
                secret = f"resume.{welcome['resume_token']}"  # if the connection breaks, the tracks go on
                while waiting:
                    sequence += 1
                    header = struct.pack(">QQ", sequence, time.time_ns() // 1_000_000)
                    await socket.send(header + waiting[0])
                    show(json.loads(await socket.recv()))
                    waiting.pop(0)
                await socket.send('{"type": "bye"}')
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else None
                if code not in RESUMED:
                    raise SystemExit(f"closed: {closed.rcvd.reason} ({code})") from None


def show(answer: dict) -> None:
    if answer["type"] == "refused":
        print(f"{answer['sequence']}: {answer['detail']}")
    for track in answer.get("tracks", ()):
        person = track["person"] or {}
        name = person.get("name") or person.get("id") or track["verdict"] or "…"
        print(f"{answer['sequence']}: {name} ({track['track_id']}, {answer['timings_ms']['total']:.0f} ms)")


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1].rstrip("/"), os.environ["VULTUS_KEY"], sys.argv[2:]))
