"""Sends pictures, JPEG or WebP, as a live session and prints who is in them; needs `pip install websockets`."""

import asyncio
import json
import os
import struct
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException


def make_ticket(server: str, key: str) -> str:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        with urlopen(Request(f"{server}/v1/live/tickets", b'{"collection": "default"}', headers)) as answer:
            return json.load(answer)["ticket"]
    except HTTPError as refused:
        raise SystemExit(json.load(refused)["detail"]) from None
    except URLError as error:
        raise SystemExit(f"{server}: {error.reason}") from None


async def watch(server: str, key: str, pictures: list[str]) -> None:
    url, secret = server.replace("http", "ws", 1) + "/v1/live", f"ticket.{make_ticket(server, key)}"
    waiting = list(enumerate((Path(one).read_bytes() for one in pictures), 1))
    while waiting:
        try:
            async with connect(url, subprotocols=["vultus.live.v1", secret]) as socket:
                welcome = json.loads(await socket.recv())
                secret = f"resume.{welcome['resume_token']}"  # if the connection breaks, the tracks go on
                while waiting:
                    sequence, picture = waiting[0]
                    await socket.send(struct.pack(">QQ", sequence, time.time_ns() // 1_000_000) + picture)
                    show(json.loads(await socket.recv()))
                    waiting.pop(0)
                    await asyncio.sleep(1 / welcome["frames_per_second"])
                await socket.send('{"type": "bye"}')
        except (OSError, WebSocketException) as lost:
            if not isinstance(lost, ConnectionClosed) or (lost.rcvd and lost.rcvd.code) not in {None, 1011, 4440, 4443}:
                raise SystemExit(f"closed: {getattr(lost, 'rcvd', lost)}") from None


def show(answer: dict) -> None:
    if answer["type"] == "refused":
        print(f"{answer['sequence']}: {answer['detail']}")
    for track in answer.get("tracks", ()):
        person = track["person"] or {}
        name = person.get("name") or person.get("id") or track["verdict"] or "…"
        print(f"{answer['sequence']}: {name} ({track['track_id']}, {answer['timings_ms']['total']:.0f} ms)")


if __name__ == "__main__":
    if len(sys.argv) < 3 or "KEY" not in os.environ:
        raise SystemExit("Usage: KEY=vultus_… live_client.py http://127.0.0.1:8000 one.jpg two.jpg …")
    asyncio.run(watch(sys.argv[1].rstrip("/"), os.environ["KEY"], sys.argv[2:]))
