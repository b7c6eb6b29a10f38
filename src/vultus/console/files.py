"""Files of this package as answers: read once, and checked by the browser each time."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from importlib.resources.abc import Traversable

    from starlette.requests import Request

KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".json": "application/json",
}
"""Media type by ending; whatever has another one is text."""


def read_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield name, with the folders under this one, and content of every file."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from read_files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()


def build_endpoint(
    name: str, content: bytes, headers: Mapping[str, str]
) -> Callable[[Request], Coroutine[None, None, Response]]:
    """Return what answers with a file, compressed to whoever takes that, or that it has not changed."""
    kind = KINDS.get(name[name.rfind(".") :], "text/plain")
    digest = hashlib.sha256(content).hexdigest()[:32]
    is_picture = kind.startswith("image/") and kind != KINDS[".svg"]

    @cache
    def build_form(encoding: str) -> tuple[bytes, dict[str, str]]:
        head = {"ETag": f'"{digest}-{encoding}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **headers}
        if encoding == "gzip":
            return gzip.compress(content, mtime=0), head | {"Content-Encoding": encoding}
        return content, head

    async def send_file(request: Request) -> Response:
        takes_gzip = "gzip" in request.headers.get("accept-encoding", "") and not is_picture
        body, head = build_form("gzip" if takes_gzip else "plain")
        if request.headers.get("if-none-match") == head["ETag"]:
            return Response(status_code=304, headers=head)
        return Response(body, media_type=kind, headers=head)

    return send_file
