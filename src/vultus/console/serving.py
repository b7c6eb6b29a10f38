"""Serves the console's files from this package: read once, checked by the browser each time, under a strict policy."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from importlib.resources.abc import Traversable

    from starlette.applications import Starlette
    from starlette.requests import Request

PATH = "/console"
ASSETS = "/console-assets"
INDEX = "index.html"
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": SECURITY_POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PRELOADS = "<!-- modules -->"
"""In the page: where its scripts are named, so that the browser need not find them one after the other."""


def add_console(app: Starlette) -> None:
    """Serve the console in an application; every address in it is relative, so it works under any prefix."""
    found = dict(_read_files(files("vultus.console") / "static"))
    modules = sorted(name for name in found if name.endswith(".js"))
    links = "\n".join(f'<link rel="modulepreload" href="{ASSETS[1:]}/{name}">' for name in modules)
    page = found.pop(INDEX).replace(PRELOADS.encode(), links.encode())
    app.router.routes += [
        Route(PATH, _build_endpoint(page, KINDS[".html"], PAGE_HEADERS), methods=["GET"]),
        *(
            Route(f"{ASSETS}/{name}", _build_endpoint(content, KINDS[name[name.rindex(".") :]], {}), methods=["GET"])
            for name, content in found.items()
        ),
    ]


def _read_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read_files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()


def _build_endpoint(
    content: bytes, kind: str, headers: dict[str, str]
) -> Callable[[Request], Coroutine[None, None, Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    always = {"ETag": tag, "Cache-Control": "no-cache", **headers}

    async def send_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=always)
        return Response(content, media_type=kind, headers=always)

    return send_file
