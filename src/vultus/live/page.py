"""The bare test page `/live`: the browser's camera, with names on the faces. Its files come from this package alone."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request

SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": SECURITY_POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
}
PATHS = {
    "/live": ("index.html", "text/html", PAGE_HEADERS),
    "/live-assets/live.js": ("live.js", "text/javascript", {}),
    "/live-assets/live.css": ("live.css", "text/css", {}),
}


def build_page_routes() -> list[Route]:
    """Return the page and what it needs; every address in it is relative, so it works under any prefix."""
    folder = files("vultus.live") / "static"
    return [
        Route(path, _build_endpoint(folder.joinpath(name).read_bytes(), kind, headers), methods=["GET"])
        for path, (name, kind, headers) in PATHS.items()
    ]


def _build_endpoint(
    content: bytes, kind: str, headers: dict[str, str]
) -> Callable[[Request], Coroutine[None, None, Response]]:
    async def send_file(_request: Request) -> Response:
        return Response(content, media_type=kind, headers=headers)

    return send_file
