"""Examples of successful responses for the OpenAPI document, composed of the examples beside the schemas' fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vultus.schemas.base import TIMESTAMP, ApiModel
from vultus.schemas.galleries import CollectionOut

_UNCOUNTED = {"persons": None, "faces": None}
_ONE_TEMPLATE = {"gallery_size": 1, "margin": None, "false_positive_identification_rate": 0.0001}
_CHANGED_FIELDS: Mapping[str, dict[str, Any]] = {
    "add_faces": {"created": False},
    "compare": _ONE_TEMPLATE,
    "verify": _ONE_TEMPLATE,
    "create_collection": _UNCOUNTED,
    "list_collections": {"items": [CollectionOut.build_example(**_UNCOUNTED)]},
    "change_collection": _UNCOUNTED,
    "revoke_key": {"revoked_at": TIMESTAMP},
}
"""By operation id: fields in which an operation's example differs from its schema's."""


def add_example(operation: dict[str, Any], status: int, response_model: type[ApiModel]) -> None:
    """Add the example of a successful response to the OpenAPI description of its operation."""
    example = response_model.build_example(**_CHANGED_FIELDS.get(operation["operationId"], {}))
    operation["responses"][str(status)]["content"]["application/json"]["example"] = example
