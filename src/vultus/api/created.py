"""What an answer says beside its body: where a created resource is, and that an answer is one given before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from fastapi import Request

    from vultus.domain import StoredResponse

LOCATION_KEY = "x-location"


def name_location(template: str) -> dict[str, Any]:
    """Declare where the resource is that a route creates.

    Args:
        template: A path with members of the answer or parameters of the path in braces.
    """
    return {LOCATION_KEY: template}


def add_location(response: Response, template: str, request: Request) -> None:
    """Add the header `Location` to an answer, under the prefix that a proxy publishes."""
    members = {**request.path_params, **json.loads(bytes(response.body))}
    response.headers["Location"] = request.scope.get("root_path", "") + template.format(**members)


def build_replay(stored: StoredResponse, response_model: Any) -> Response:
    """Build the stored answer to a repeated request, equal in bytes to the first one.

    The database keeps the members of an object in an order of its own; the model restores theirs.
    """
    headers = {"Idempotent-Replayed": "true"}
    answer: TypeAdapter[Any] = TypeAdapter(response_model)
    try:
        content = answer.dump_json(answer.validate_python(stored.body))
    except ValidationError:  # stored by a version whose answers had other members
        return JSONResponse(stored.body, stored.status, headers)
    return Response(content, stored.status, headers, media_type="application/json")
