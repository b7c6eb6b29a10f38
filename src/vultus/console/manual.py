"""Serves the manual at `/manual`: the site that `make manual` or the package's build makes of docs/."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

from vultus.console.files import build_endpoint, read_files

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/manual"
INDEX = "index.html"
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
SEARCH_STYLE = "'sha256-NwSx/R2V/U4jnW0Tq5pQ53Y/rzPVJ4dqE7D6UTA/J1k='"
"""The styles that the theme's script gives the search; Chromium names the new digest where a release changes them."""
SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' {hashes}; worker-src 'self'; style-src 'self' "
    f"{SEARCH_STYLE}; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
MISSING = """<!DOCTYPE html>
<html lang="en">
<title>The manual was not built</title>
<h1>The manual was not built</h1>
<p>In a checkout, <code>make manual</code> builds it, and the next start shows it here. Packages contain it, unless
they were built with <code>HATCH_BUILD_NO_HOOKS</code>. The same pages are in the folder <code>docs</code> of the
source.</p>
</html>
"""


def add_manual(app: Starlette, folder: Traversable | None = None) -> None:
    """Serve the manual in an application; every address in it is relative, so it works under any prefix.

    Args:
        app: Gets the routes.
        folder: The site; that of the package unless given.
    """
    folder = folder or files("vultus.console") / "site"
    found = dict(read_files(folder)) if folder.is_dir() else {}
    endpoints = {name: build_endpoint(name, content, _build_headers(name, content)) for name, content in found.items()}

    async def redirect_to_index(_: Request) -> Response:
        return RedirectResponse(PATH[1:] + "/", 307) if endpoints else HTMLResponse(MISSING, 404)

    async def send_page(request: Request) -> Response:
        endpoint = endpoints.get(request.path_params["name"] or INDEX)
        if endpoint is None:
            raise HTTPException(404)
        return await endpoint(request)

    app.router.routes += [Route(PATH, redirect_to_index), Route(f"{PATH}/{{name:path}}", send_page)]


def _build_headers(name: str, content: bytes) -> dict[str, str]:
    """Return the policy of a page, which allows exactly the scripts that are written in it."""
    if not name.endswith(".html"):
        return {}
    digests = {hashlib.sha256(script).digest() for script in INLINE_SCRIPT.findall(content)}
    hashes = " ".join(sorted(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests))
    return {"Content-Security-Policy": SECURITY_POLICY.format(hashes=hashes)}
