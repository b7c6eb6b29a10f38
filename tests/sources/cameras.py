"""Cameras made of video files: MJPEG and HLS over HTTP on the loopback, which can be switched off and on."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av

BOUNDARY = "frame"


@dataclass
class Camera:
    """What a camera serves.

    Attributes:
        pictures: JPEG files, sent again and again at `/mjpeg`.
        files: Bodies of other paths, or addresses that they redirect to.
        password: `user:password` that it requires.
        requests: Paths that were asked for.
    """

    pictures: list[bytes] = field(default_factory=list)
    files: dict[str, bytes | str] = field(default_factory=dict)
    fps: float = 25
    password: str | None = None
    requests: list[str] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None
    _connections: list[Any] = field(default_factory=list)
    port: int = 0

    def start(self) -> None:
        """Answer, at the same port as before."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), partial(_Handler, self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    @property
    def is_on(self) -> bool:
        return self._server is not None

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{path}"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, camera: Camera, *arguments: Any) -> None:
        self._camera = camera
        super().__init__(*arguments)

    def do_GET(self) -> None:
        camera = self._camera
        camera.requests.append(self.path)
        wanted = camera.password and "Basic " + base64.b64encode(camera.password.encode()).decode()
        if wanted and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif self.path == "/mjpeg":
            self._stream_pictures()
        elif isinstance(found := camera.files.get(self.path), str):
            self.send_response(302)
            self.send_header("Location", found)
            self.end_headers()
        elif found is not None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)
        else:
            self.send_error(404)

    def _stream_pictures(self) -> None:
        camera = self._camera
        camera._connections.append(self.connection)
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.end_headers()
        number = 0
        while camera.is_on:
            picture = camera.pictures[number % len(camera.pictures)]
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + picture + b"\r\n")
            except (OSError, ValueError):
                return
            number += 1
            time.sleep(1 / camera.fps)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def write_playlist(folder: Path, video: Path) -> dict[str, bytes]:
    """Return the files of a video on demand over HLS, by path."""
    with (
        av.open(str(video)) as source,
        av.open(
            str(folder / "list.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_list_size": "0"}
        ) as target,
    ):
        given = source.streams.video[0]
        made = target.add_stream_from_template(given)
        for packet in source.demux(given):
            if packet.dts is not None:
                packet.stream = made
                target.mux(packet)
    return {f"/{path.name}": path.read_bytes() for path in folder.iterdir() if path.suffix in {".m3u8", ".ts"}}


async def wait_until(condition: Any, seconds: float = 20) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  what happens elsewhere has no event
            await asyncio.sleep(0.02)
