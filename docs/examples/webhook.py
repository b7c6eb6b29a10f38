"""Receives events: verifies the signature, answers at once, works afterwards; needs `pip install standardwebhooks`."""

import os
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

events: queue.Queue[dict] = queue.Queue()
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))  # as it came, before any parser
        try:
            events.put(webhook.verify(body, {name.lower(): value for name, value in self.headers.items()}))
        except WebhookVerificationError:
            self.send_error(400)
            return
        self.send_response(204)
        self.end_headers()


def work() -> None:
    seen = set()  # in a program of yours: in the database, with what the event caused
    while event := events.get():
        if event["id"] not in seen:  # an event may come more than once
            seen.add(event["id"])
            print(event["type"], event["data"], flush=True)


if __name__ == "__main__":
    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver).serve_forever()
