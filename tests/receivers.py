"""A receiver of webhooks on the loopback interface; it verifies what it gets, and stops when its block ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

Answer = int | tuple[int, dict[str, str]]


@dataclass
class Message:
    """What arrived, and whether its signature was right."""

    headers: dict[str, str]
    body: dict[str, Any]
    is_signed: bool
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """Of the event."""
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """A receiver.

    Attributes:
        secret: Verifies signatures, from `whsec_` on.
        answer: Status, and headers, for a message.
        delay_s: Before every answer.
        messages: Everything that arrived.
        accepted: What was answered with a success.
    """

    url: str = ""
    secret: str = ""
    answer: Callable[[Message], Answer] = lambda _: 204
    delay_s: float = 0.0
    messages: list[Message] = field(default_factory=list)
    accepted: list[Message] = field(default_factory=list)

    def handle(self, headers: dict[str, str], content: bytes) -> Answer:
        """Note a message, and return the answer to it."""
        try:
            Webhook(self.secret).verify(content, headers)
            is_signed = True
        except (WebhookVerificationError, EmptyWebhookSecretError):
            is_signed = False
        message = Message(headers, json.loads(content), is_signed)
        self.messages.append(message)
        time.sleep(self.delay_s)
        answer = self.answer(message)
        status = answer if isinstance(answer, int) else answer[0]
        if 200 <= status < 300:
            self.accepted.append(message)
        return answer


@contextmanager
def receiving(receiver: Receiver | None = None, port: int = 0) -> Iterator[Receiver]:
    """Listen until the block ends."""
    target = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = target.handle(headers, content)
            status, more = (answer, {}) if isinstance(answer, int) else answer
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        target.url = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield target
        finally:
            server.shutdown()
            thread.join()
