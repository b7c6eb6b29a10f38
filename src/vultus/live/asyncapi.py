"""The AsyncAPI document: the messages of a live session, derived from the models that read and write them."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from vultus import __version__
from vultus.live.close_codes import CloseCode
from vultus.schemas.live import (
    PATH,
    PROTOCOL,
    RESUME_PREFIX,
    TICKET_PREFIX,
    ByeIn,
    FrameRefusedOut,
    HelloIn,
    ResultOut,
    WelcomeOut,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from vultus.schemas.base import ApiModel

SCHEMAS = "#/components/schemas/"
CLIENT_MESSAGES: dict[str, type[ApiModel]] = {"hello": HelloIn, "bye": ByeIn}
SERVER_MESSAGES: dict[str, type[ApiModel]] = {"welcome": WelcomeOut, "result": ResultOut, "refused": FrameRefusedOut}
DESCRIPTION = f"""Recognise people in live video: frames go to the server, tracks come back.

Make a ticket with `POST /v1/live/tickets` of the HTTP API (`/openapi.json`) and bring it as the sub-protocol
`{TICKET_PREFIX}TICKET` beside `{PROTOCOL}`, or in the message `hello`; never in the address. After `welcome`, send
frames. Of the frames that come while one is processed, the newest waits and the others are dropped and counted."""
SERVER = {
    "host": "127.0.0.1:8000",
    "protocol": "ws",
    "description": "This server; `wss` where it is served with TLS.",
}
FRAME = {
    "name": "frame",
    "title": "A frame",
    "summary": "16 bytes of header, then a JPEG or WebP file, as one binary message.",
    "description": "The header is big-endian: an unsigned 64-bit sequence number, below 2^53 and greater than that of "
    "the frame before, and an unsigned 64-bit number of milliseconds since 1970, when the frame was taken.",
    "contentType": "application/octet-stream",
    "payload": {"type": "string", "format": "binary", "minLength": 17},
}


def build_asyncapi_schema() -> dict[str, Any]:
    """Return the document."""
    models = {**CLIENT_MESSAGES, **SERVER_MESSAGES}
    modes = [(model, "validation" if name in CLIENT_MESSAGES else "serialization") for name, model in models.items()]
    _, definitions = models_json_schema(modes, ref_template=SCHEMAS + "{model}")  # type: ignore[arg-type]
    messages = {"frame": FRAME} | {name: _describe_message(name, model) for name, model in models.items()}
    received = ["frame", *CLIENT_MESSAGES]
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Vultus live recognition",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"this": SERVER},
        "channels": {
            "live": {
                "address": PATH,
                "title": "A live session",
                "description": f"A WebSocket with the sub-protocol `{PROTOCOL}`, and with it `{TICKET_PREFIX}TICKET` "
                f"or `{RESUME_PREFIX}TOKEN`.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
                "x-close-codes": {str(code.value): f"{code.name}: {code.meaning}" for code in CloseCode},
            }
        },
        "operations": {
            "receiveFromClient": _describe_operation("receive", "What a client sends.", received),
            "sendToClient": _describe_operation("send", "What a client is told.", list(SERVER_MESSAGES)),
        },
        "components": {"messages": messages, "schemas": definitions["$defs"]},
    }
    return _rename_schemas(document)


def _rename_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with schemas named as a client would: `Track` for TrackOut."""
    schemas = document["components"]["schemas"]
    names = {name: re.sub(r"(In|Out)$", "", name) for name in schemas}
    if len({*names.values()}) < len(names):
        raise ValueError("two schemas would have one name")
    document["components"]["schemas"] = {
        names[name]: schema | ({"title": names[name]} if "title" in schema else {}) for name, schema in schemas.items()
    }
    renamed: dict[str, Any] = json.loads(
        re.sub(f'"{SCHEMAS}(\\w+)"', lambda found: f'"{SCHEMAS}{names[found[1]]}"', json.dumps(document))
    )
    return renamed


def _describe_message(name: str, model: type[ApiModel]) -> dict[str, Any]:
    is_sent = name in SERVER_MESSAGES
    examples = [model.build_example() if is_sent else model.build_request_example()]
    if model is HelloIn:
        token = examples[0]["ticket"]
        examples = [{"type": "hello", "ticket": token}, {"type": "hello", "resume_token": token}]
    return {
        "name": name,
        "title": name.capitalize(),
        "summary": (model.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "payload": {"$ref": f"{SCHEMAS}{model.__name__}"},
        "examples": [{"payload": example} for example in examples],
    }


def _describe_operation(action: str, summary: str, messages: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/live"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/live/messages/{name}"} for name in messages],
    }


def render_document(prefix: str) -> bytes:
    """Return the document as JSON.

    Args:
        prefix: Path under which a proxy publishes the server, without a slash at the end.
    """
    document = _render_document()
    if prefix:
        document = document.replace(_encode(SERVER), _encode(SERVER | {"pathname": prefix}), 1)
    return document


@functools.cache
def _render_document() -> bytes:
    """Return the document as JSON: no key is needed, so it is made once, and kept once for all prefixes."""
    return _encode(build_asyncapi_schema())


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


async def show_asyncapi(request: Request) -> Response:
    """Answer with the document, which needs no key."""
    document = render_document(request.scope.get("root_path", "").rstrip("/"))
    return Response(document, media_type="application/json")
