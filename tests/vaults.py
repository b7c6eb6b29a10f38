"""A stub of HashiCorp Vault on the loopback interface: the part of its API that the key ring calls, no Vault.

Paths, methods, members and statuses are those that Vault's documentation of the transit engine and of the logins
describes; ciphertexts are sealed by real AES-GCM, so that another key or another context does not open them.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN, ROLE, SECRET_ID = "hvs.stub", "a-role", "a-secret-id"


class RefusalError(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        self.status, self.errors = status, errors


@dataclass
class StubKey:
    type: str
    versions: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    min_decryption_version: int = 1
    min_encryption_version: int = 0

    def rotate(self) -> None:
        self.versions[max(self.versions, default=0) + 1] = secrets.token_bytes(32), int(time.time())


@dataclass
class StubVault:
    """What the stub knows.

    Attributes:
        is_sealed: Whether everything is answered with 503.
        denied: Beginning of paths that the policy of the token does not allow.
        token: Which one is right.
        calls: Method and path of every request.
    """

    url: str = ""
    is_sealed: bool = False
    denied: str = "none"
    token: str = TOKEN
    keys: dict[str, StubKey] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, headers: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        self.calls.append(f"{method} {path}")
        if self.is_sealed:
            raise RefusalError(503, "Vault is sealed")
        if path.startswith("auth/"):
            right = {"role_id": ROLE, "secret_id": SECRET_ID} if "approle" in path else {"role": ROLE, "jwt": "a-jwt"}
            if body != right:
                raise RefusalError(400, "invalid role or secret ID")
            return {"auth": {"client_token": self.token}}
        if (
            headers.get("X-Vault-Token") != self.token
            or headers.get("X-Vault-Namespace")
            or path.startswith(self.denied)
        ):
            raise RefusalError(403, "1 error occurred:\n\t* permission denied\n\n")
        match path.split("/"):
            case ["transit", "keys", name] if method == "POST":
                key = self.keys.setdefault(name, StubKey(body["type"]))
                if not key.versions:
                    key.rotate()
                return None
            case ["transit", _, name, *_] if name not in self.keys:
                raise RefusalError(404) if method == "GET" else RefusalError(400, "encryption key not found")
            case ["transit", "keys", name]:
                key = self.keys[name]
                return {"data": {**vars(key), "versions": None, "keys": {v: at for v, (_, at) in key.versions.items()}}}
            case ["transit", operation, name, *rest]:
                data = getattr(self, f"_{rest[0] if rest else operation}")(self.keys[name], body)
                return None if data is None else {"data": data}
        raise RefusalError(404)

    def _encrypt(self, key: StubKey, body: dict[str, Any]) -> dict[str, Any]:
        version, nonce = max(key.versions), secrets.token_bytes(12)
        context, plain = base64.b64decode(body["associated_data"]), base64.b64decode(body["plaintext"])
        sealed = nonce + AESGCM(key.versions[version][0]).encrypt(nonce, plain, context)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}"}

    def _decrypt(self, key: StubKey, body: dict[str, Any]) -> dict[str, Any]:
        _, version, encoded = body["ciphertext"].split(":")
        sealed, number = base64.b64decode(encoded), int(version[1:])
        if number < key.min_decryption_version:
            raise RefusalError(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            secret = key.versions[number][0]
            plain = AESGCM(secret).decrypt(sealed[:12], sealed[12:], base64.b64decode(body["associated_data"]))
        except (InvalidTag, KeyError):
            raise RefusalError(400, "cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plain).decode()}

    def _rotate(self, key: StubKey, _: dict[str, Any]) -> None:
        key.rotate()

    def _config(self, key: StubKey, body: dict[str, Any]) -> None:
        vars(key).update(body)
        if 0 < key.min_encryption_version < key.min_decryption_version:
            raise RefusalError(400, "min encryption version must be greater than or equal to min decryption version")

    def _trim(self, key: StubKey, body: dict[str, Any]) -> None:
        least = body["min_available_version"]
        if least > min(key.min_decryption_version, key.min_encryption_version):
            raise RefusalError(400, "minimum available version cannot be higher than minimum encryption version")
        key.versions = {version: one for version, one in key.versions.items() if version >= least}


@contextmanager
def run_vault() -> Iterator[StubVault]:
    """Serve a stub until the block ends."""
    vault = StubVault()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            try:
                content = vault.answer(self.command, self.path.removeprefix("/v1/"), self.headers, body)
                status = 204 if content is None else 200
            except RefusalError as error:
                status, content = error.status, {"errors": list(error.errors)}
            self.send_response(status)
            self.end_headers()
            if content is not None:
                self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    vault.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
