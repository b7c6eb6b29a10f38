"""The demo as a user of the public API: nothing else does it touch."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from vultus.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 60


class ApiClient:
    """Sends requests to a server on this machine; each blocks until it is answered.

    Args:
        address: Of the server, without a path.
        key: With every permission.
    """

    def __init__(self, address: str, key: str) -> None:
        self._host = urlsplit(address).netloc
        self._key = key

    def send_json(self, method: str, path: str, document: Any) -> Any:
        """Send a document, and return the one that answers.

        Raises:
            UnavailableError: The server refused; the message has its reason.
        """
        return self._send(method, path, json.dumps(document).encode(), "application/json")

    def send_form(self, path: str, fields: Mapping[str, str], photos: Sequence[bytes]) -> Any:
        """Send a form with photos, and return the document that answers.

        Raises:
            UnavailableError: The server refused; the message has its reason.
        """
        boundary = uuid4().hex
        parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
        parts += [(f'name="photo"; filename="{at}.jpg"', photo) for at, photo in enumerate(photos, 1)]
        body = b"".join(
            f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
            for head, content in parts
        )
        return self._send(
            "POST", path, body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
        )

    def _send(self, method: str, path: str, body: bytes, kind: str) -> Any:
        connection = HTTPConnection(self._host, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, {"authorization": f"Bearer {self._key}", "content-type": kind})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        document: Any = json.loads(content) if content else None
        if answer.status >= 400:
            raise UnavailableError(f"The demo's request {method} {path} was refused: {document['detail']}")
        return document
