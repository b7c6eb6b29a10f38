"""The documentation at `/docs`: Swagger UI from this machine alone, without a script in the page."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import FastAPI

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Vultus API</title>
<link rel="icon" href="docs-assets/favicon.png">
<link rel="stylesheet" href="docs-assets/swagger-ui.css">
</head>
<body>
<p class="swagger-ui wrapper"><a class="link" href="manual">Manual</a> · <a class="link" href="console">Console</a></p>
<div id="swagger-ui"></div>
<script src="docs-assets/swagger-ui-bundle.js"></script>
<script src="docs-assets/open.js"></script>
</body>
</html>
"""
SCRIPT = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""
ASSET_AGE = {"Cache-Control": "public, max-age=3600"}


def add_documentation(app: FastAPI) -> None:
    """Serve the page and what it needs; every address in it is relative, so it works under any prefix."""

    async def redirect_to_beginning(request: Request) -> RedirectResponse:
        is_browser = "text/html" in request.headers.get("accept", "")
        answer = redirect_to("console" if is_browser else "docs", request, 307)
        answer.headers["Vary"] = "Accept"
        return answer

    async def show_docs(_: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": SECURITY_POLICY})

    app.add_route("/", redirect_to_beginning, include_in_schema=False)
    app.add_route("/docs", show_docs, include_in_schema=False)

    # In memory, so that an answer is written at once and no reader, however slow, keeps a request under way.
    folder = files("fastapi_offline") / "static"
    assets = {name: (folder.joinpath(name).read_bytes(), kind) for name, kind in ASSETS.items()}
    assets["open.js"] = SCRIPT, "text/javascript"
    for name, (content, kind) in assets.items():
        app.add_route(f"/docs-assets/{name}", _build_asset_endpoint(content, kind), include_in_schema=False)


def redirect_to(path: str, request: Request, status: int) -> RedirectResponse:
    """Redirect to a path beside this one: relative, or under the prefix that a proxy publishes."""
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/{path}" if root else path, status)


def _build_asset_endpoint(content: bytes, kind: str) -> Callable[[Request], Coroutine[None, None, Response]]:
    async def send_asset(_: Request) -> Response:
        return Response(content, media_type=kind, headers=ASSET_AGE)

    return send_asset
