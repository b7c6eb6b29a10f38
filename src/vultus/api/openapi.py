"""The description of the API: what FastAPI derives from the routes, in the words and forms that tools understand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from vultus.api.created import LOCATION_KEY
from vultus.api.guard import ANY_KEY, PERMISSION_KEY, GuardedRoute, find_body_shape
from vultus.errors import VultusError
from vultus.schemas.base import TIMESTAMP, ApiModel
from vultus.schemas.galleries import CollectionOut
from vultus.schemas.reasons import list_subclasses
from vultus.schemas.system import Problem

MERGE_PATCH_MEDIA_TYPE = "application/merge-patch+json"
FORM_MEDIA_TYPE = "multipart/form-data"
REFERENCE = "#/components/schemas/"
TAGS = [
    {"name": "registration", "description": "Enrol people from photos, with their consent."},
    {"name": "recognition", "description": "Find, recognise, verify and compare the faces of photos."},
    {"name": "collections", "description": "Isolated galleries: network, policy, retention, calibration."},
    {"name": "transitions", "description": "Migrate a collection to another network while it is in use."},
    {"name": "persons", "description": "People of a collection: read, change, export, erase."},
    {"name": "faces", "description": "Enrolled templates of a person, without their vectors."},
    {"name": "consents", "description": "What a person agreed to, until when, and its withdrawal."},
    {"name": "erasures", "description": "What was erased, and how far its bytes are gone."},
    {"name": "events", "description": "What happened and who was seen: listed, streamed, delivered to webhooks."},
    {"name": "live", "description": "Recognise people in live video; its messages are described in `/asyncapi.json`."},
    {"name": "system", "description": "Health, version, networks, keys and the audit record."},
]
SERVERS: list[dict[str, Any]] = [{"url": "/", "description": "This server"}]
MODULES_OF_ERRORS = ("vultus.errors", "vultus.api.problems")
OTHER_CODES = ("method_not_allowed", "head_too_long", "too_many_connections")
"""Codes of problems of the router and the HTTP server."""

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


def build_openapi_schema(app: FastAPI) -> dict[str, Any]:
    """Return the description of an application's routes."""
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
        tags=TAGS,
        servers=SERVERS,
    )
    schemas = schema["components"]["schemas"]
    schemas |= models_json_schema([(Problem, "serialization")], ref_template=REFERENCE + "{model}")[1]["$defs"]
    schemas["Problem"]["properties"]["code"]["enum"] = sorted(
        {error.code for error in list_subclasses(VultusError) if error.__module__ in MODULES_OF_ERRORS}
        - {VultusError.code}
        | {*OTHER_CODES}
    )
    schema["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    guarded = [route for route in app.routes if isinstance(route, GuardedRoute)]
    shapes = {route.name: shape for route in guarded if (shape := find_body_shape(route)) and not shape.is_form}
    models = {route.name: (route.status_code or 200, route.response_model) for route in guarded if route.response_model}
    for methods in schema["paths"].values():
        for method, operation in methods.items():
            _complete_operation(method, operation, schemas)
            name = operation["operationId"]
            if name in models:
                _add_example(operation, *models[name])
            if name in shapes and method == "post":
                body = operation["requestBody"]["content"]["application/json"]
                body["example"] = shapes[name].model.build_request_example()
    renamed: dict[str, Any] = _rename_schemas(schema)
    return renamed


def _complete_operation(method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if method == "patch":
        content[MERGE_PATCH_MEDIA_TYPE] = content["application/json"]
    if FORM_MEDIA_TYPE in content:
        _simplify_form(schemas[content[FORM_MEDIA_TYPE]["schema"]["$ref"].removeprefix(REFERENCE)])
    if operation.pop(LOCATION_KEY, None):
        operation["responses"]["201"]["headers"] = {
            "Location": {"description": "Path of what was created.", "schema": {"type": "string"}}
        }
    if PERMISSION_KEY in operation or ANY_KEY in operation:
        operation["security"] = [{"bearer": []}, {"header": []}]
        needed = f" with the permission `{operation[PERMISSION_KEY]}`" if PERMISSION_KEY in operation else ""
        operation["description"] += f"\n\nNeeds a key{needed}."
    else:
        operation["responses"].pop("422", None)


def _simplify_form(form: dict[str, Any]) -> None:
    """Describe the fields of a form as texts and files, required ones first: null cannot be sent, only left out."""
    required = form.get("required", ())
    form["properties"] = dict(sorted(form["properties"].items(), key=lambda field: field[0] not in required))
    for field in form["properties"].values():
        kinds = [kind for kind in field.pop("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:
            field |= kinds[0] | field
        elif kinds:
            field["anyOf"] = kinds
        if field.get("default", ...) is None:
            del field["default"]


def _add_example(operation: dict[str, Any], status: int, response_model: type[ApiModel]) -> None:
    """Add the example of a successful response to the description of its operation."""
    example = response_model.build_example(**_CHANGED_FIELDS.get(operation["operationId"], {}))
    operation["responses"][str(status)]["content"]["application/json"]["example"] = example


def _rename_schemas(schema: dict[str, Any]) -> Any:
    """Return the document with schemas named as a client would: `Person` for PersonOut, `PersonPage` for its pages."""
    names = {name: _build_schema_name(name) for name in schema["components"]["schemas"]}
    doubled = {name for name in names.values() if list(names.values()).count(name) > 1}
    if doubled:
        raise ValueError(f"two schemas would be called {sorted(doubled)}")
    schema["components"]["schemas"] = {
        names[name]: described | ({"title": names[name]} if "title" in described else {})
        for name, described in schema["components"]["schemas"].items()
    }
    return _replace_references(schema, names)


def _build_schema_name(name: str) -> str:
    page = re.fullmatch(r"Page_(\w+)_", name)
    return f"{_build_schema_name(page[1])}Page" if page else re.sub(r"(Out|Wire)$", "", name)


def _replace_references(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: REFERENCE + names[inner.removeprefix(REFERENCE)]
            if key == "$ref" and isinstance(inner, str)
            else _replace_references(inner, names)
            for key, inner in value.items()
        }
    return [_replace_references(inner, names) for inner in value] if isinstance(value, list) else value
