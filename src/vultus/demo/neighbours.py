"""What stands around the server in the demo, on this machine alone: a camera, and a receiver of its webhook."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from standardwebhooks import Webhook, WebhookVerificationError

from vultus.demo.film import FPS, LOOP_S, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Receive = Callable[[dict[str, Any]], None]

HOST = "127.0.0.1"
CAMERA_PATH, HOOK_PATH = "/camera", "/hook"
BOUNDARY = "frame"
MAX_EVENT_BYTES = 64 * 2**10


class Neighbours(ThreadingHTTPServer):
    """The camera as motion JPEG over HTTP, which any number may watch, and the receiver.

    Args:
        receive: Called with each event that came with the right signature, in a thread of its own.
    """

    daemon_threads = True

    def __init__(self, receive: Receive) -> None:
        super().__init__((HOST, 0), _NeighbourHandler)
        self.receive = receive
        self.secret = ""
        self.ended = threading.Event()
        self._started_at: float | None = None

    @property
    def address(self) -> str:
        """Without a path."""
        return f"http://{HOST}:{self.server_port}"

    def find_frame(self) -> int:
        """Return the number of the frame that the camera sees now; the film begins with the first watcher."""
        if self._started_at is None:
            self._started_at = time.monotonic()
        return int((time.monotonic() - self._started_at) * FPS) % round(LOOP_S * FPS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a watcher that went away."""


class _NeighbourHandler(BaseHTTPRequestHandler):
    server: Neighbours

    def do_GET(self) -> None:
        """Show the camera until the watcher goes."""
        if self.path != CAMERA_PATH:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("content-type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.end_headers()
        while not self.server.ended.is_set():
            frame = encode_frame(self.server.find_frame())
            head = f"--{BOUNDARY}\r\ncontent-type: image/jpeg\r\ncontent-length: {len(frame)}\r\n\r\n"
            self.wfile.write(head.encode() + frame + b"\r\n")
            self.server.ended.wait(1 / FPS)

    def do_POST(self) -> None:
        """Take an event."""
        content = self.rfile.read(min(int(self.headers.get("content-length", 0)), MAX_EVENT_BYTES))
        try:
            Webhook(self.server.secret).verify(content, {name.lower(): value for name, value in self.headers.items()})
        except (WebhookVerificationError, ValueError):
            self.send_error(403)
            return
        self.send_response(204)
        self.end_headers()
        self.server.receive(json.loads(content))

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""


@contextmanager
def run_neighbours(receive: Receive) -> Iterator[Neighbours]:
    """Run camera and receiver for the length of the block."""
    with Neighbours(receive) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
