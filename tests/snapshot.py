"""Writes the descriptions of the API to docs/openapi.json and docs/asyncapi.json: `make openapi`, after a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vultus.api.app import create_app
from vultus.live.asyncapi import build_asyncapi_schema
from vultus.utils.request_scope import RequestLimits

SNAPSHOT = Path(__file__).parents[1] / "docs" / "openapi.json"
LIVE_SNAPSHOT = SNAPSHOT.with_name("asyncapi.json")


def render_description(schema: dict[str, Any]) -> str:
    """Return a description as the snapshot keeps it: one member a line, so that a difference can be read."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    app = create_app(None, limits=RequestLimits(max_requests=1, max_bodies_bytes=1))  # type: ignore[arg-type]
    SNAPSHOT.write_text(render_description(app.openapi()), encoding="utf-8")
    LIVE_SNAPSHOT.write_text(render_description(build_asyncapi_schema()), encoding="utf-8")
