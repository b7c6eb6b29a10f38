"""Serves the console at `/console`, under a strict policy."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.routing import Route

from vultus.console.files import build_endpoint, read_files

if TYPE_CHECKING:
    from starlette.applications import Starlette

PATH = "/console"
ASSETS = "/console-assets"
INDEX = "index.html"
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
    found = dict(read_files(files("vultus.console") / "static"))
    modules = sorted(name for name in found if name.endswith(".js"))
    links = "\n".join(f'<link rel="modulepreload" href="{ASSETS[1:]}/{name}">' for name in modules)
    page = found.pop(INDEX).replace(PRELOADS.encode(), links.encode())
    app.router.routes += [
        Route(PATH, build_endpoint(INDEX, page, PAGE_HEADERS), methods=["GET"]),
        *(
            Route(f"{ASSETS}/{name}", build_endpoint(name, content, {}), methods=["GET"])
            for name, content in found.items()
        ),
    ]
