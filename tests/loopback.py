"""A web server and a proxy on the loopback interface, for tests of downloads; both stop when their block ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import ProxyHandler, Request, build_opener


@dataclass
class Site:
    """Content and behaviour of a server, and the requests it received.

    Attributes:
        files: Content by path.
        redirects: Location by path.
        etag: Sent with every file, when it has one.
        ranges: Whether parts are served.
        cut_after: Bytes after which the connection of the next answer ends, once.
        shift: Bytes by which the next served part is off from the requested one, once.
        status: Sent instead of any file, when set.
        requests: The path and the Range header of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: int | None = None
    shift: int = 0
    status: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(**settings: object) -> Iterator[Site]:
    """Serve a site until the block ends."""
    site = Site(**settings)  # type: ignore[arg-type]

    class Handler(_Quiet):
        def do_GET(self) -> None:
            self.answer(site)

    with _running(Handler) as url:
        site.url = url
        yield site


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Run a forward proxy for http; yield its address and the list of requested addresses."""
    addresses: list[str] = []

    class Handler(_Quiet):
        def do_GET(self) -> None:
            addresses.append(self.path)
            with build_opener(ProxyHandler({})).open(Request(self.path)) as answer:
                content = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with _running(Handler) as url:
        yield url, addresses


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, site: Site) -> None:
        sent_range = self.headers["Range"]
        site.requests.append((self.path, sent_range))
        if site.status or (self.path not in site.files and self.path not in site.redirects):
            self.send_error(site.status or 404)
            return
        if self.path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = site.files[self.path]
        start = 0
        if sent_range and site.ranges and self.headers.get("If-Range", site.etag) == site.etag:
            start = int(sent_range.removeprefix("bytes=").removesuffix("-")) + site.shift
            site.shift = 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if self.path.endswith("/"):
            self.send_header("Content-Type", "text/html")  # pip reads no other index
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        cut, site.cut_after = site.cut_after, None
        self.wfile.write(content[start : None if cut is None else start + cut])
        self.close_connection = True
