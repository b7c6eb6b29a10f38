"""The examples of the manual run: against a server, through a line that fails, and as receivers of webhooks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from tests.clients.test_generated_clients import install, run
from tests.faces import portrait
from tests.serving import serving

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
TYPESCRIPT = ("typescript@5.9.3", "@types/node@20")
COMPILE = ("--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable")
SECRET = "whsec_c2VjcmV0LW9mLXRlc3RzLXNlY3JldC1vZi10ZXN0cw=="
SAID = ["registered E-1017", "match Ada", "after erasure: no_match"]


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, str]]:
    """The address of a server, and the key of its administrator."""
    with tempfile.TemporaryDirectory(prefix="vultus-test-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder)
        data_dir.chmod(0o755)  # PostgreSQL's user may enter where root runs the tests
        with serving(data_dir, first_key=True) as (address, key, _):
            yield address, key


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scripts that TypeScript makes of the examples."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("typescript")
    if npm is None:
        pytest.skip("npm is not installed, which brings TypeScript")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    install(npm, "install", "--no-audit", "--no-fund", "--no-package-lock", *TYPESCRIPT, cwd=folder)
    for example in EXAMPLES.glob("*.ts"):
        shutil.copy(example, folder)
    run(folder / "node_modules/.bin/tsc", *COMPILE, *sorted(path.name for path in folder.glob("*.ts")), cwd=folder)
    return folder


@pytest.fixture(params=["py", "sh", "ts", "java"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def find_command(language: str, name: str, request: pytest.FixtureRequest) -> list[str | Path]:
    """Return what runs an example, or skip where its language is not installed."""
    if language == "py":
        return [sys.executable, EXAMPLES / f"{name}.py"]
    if language == "ts":
        return ["node", "--experimental-websocket", request.getfixturevalue("compiled") / f"{name}.js"]
    for program in {"sh": ("curl", "jq"), "java": ("javac",)}[language]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return ["bash", EXAMPLES / f"{name}.sh"] if language == "sh" else ["java", EXAMPLES / f"{name.title()}.java"]


@contextmanager
def unreliable(address: str, *, breaks: bool) -> Iterator[str]:
    """A line to a server that is full at the first try of a request, and loses its answer at the second."""
    tries: dict[str, int] = {}

    class Line(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = tries[self.path] = tries.get(self.path, 0) + 1
            if number == 1:
                problem = json.dumps({"code": "overloaded", "detail": "full", "status": 503}).encode()
                self.answer(503, problem, {"Retry-After": "0"})
                return
            passed = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
            answer = httpx.post(address + self.path, content=body, headers=passed, timeout=30)
            if number == 2 and breaks:
                self.close_connection = True
                return
            self.answer(answer.status_code, answer.content, {})

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_DELETE(self) -> None:
            self.answer(
                204 if httpx.delete(address + self.path, headers=dict(self.headers)).is_success else 500, b"", {}
            )

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Line)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("unmeasured_processes")
def test_a_client_registers_recognises_and_erases_through_an_unreliable_line(
    language: str, site: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address, key = site
    (tmp_path / "ada.jpg").write_bytes(portrait())
    command = find_command(language, "client", request)
    before = count_registrations(address, key)

    with unreliable(address, breaks=language != "sh") as line:
        said = run(*command, line, tmp_path / "ada.jpg", cwd=tmp_path, env={**os.environ, "KEY": key})

    assert said.splitlines() == SAID
    assert count_registrations(address, key) == before + 1, "one, however often it was sent"


def count_registrations(address: str, key: str) -> int:
    made = httpx.get(f"{address}/v1/audit?action=person.registered", headers={"Authorization": f"Bearer {key}"})
    return len(made.json()["items"])


@pytest.mark.usefixtures("unmeasured_processes")
def test_a_client_names_the_code_of_a_refusal(
    language: str, site: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "ada.jpg").write_bytes(b"no photo")
    command = find_command(language, "client", request)

    environment = {**os.environ, "KEY": site[1]}
    refused = subprocess.run(
        [*command, site[0], tmp_path / "ada.jpg"], capture_output=True, text=True, env=environment, timeout=60
    )

    assert refused.returncode == 1
    assert "no_photo_accepted: " in refused.stderr


@pytest.mark.usefixtures("unmeasured_processes")
@pytest.mark.parametrize("language", ["py", "ts", "java"], indirect=True)
def test_a_receiver_takes_what_is_signed_and_nothing_else(language: str, request: pytest.FixtureRequest) -> None:
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    command = find_command(language, "webhook", request)
    receiver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    body = json.dumps({"id": "e1", "type": "recognised", "data": {"person_id": "p1"}})

    def send(body: str, at: datetime, signed: str | None = None) -> int:
        signature = Webhook(SECRET).sign("e1", at, signed or body)
        headers = {"webhook-id": "e1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
        return httpx.post(f"http://127.0.0.1:{port}/", content=body, headers=headers).status_code

    try:
        wait_for(port)
        now = datetime.now(UTC)
        old = datetime.fromtimestamp(now.timestamp() - 3600, UTC)
        assert [send(body, now), send(body, now)] == [204, 204]
        assert send(body.replace("p1", "p2"), now, signed=body) == 400
        assert send(body, old) == 400
        assert httpx.post(f"http://127.0.0.1:{port}/", content=body).status_code == 400
    finally:
        receiver.terminate()
        said, _ = receiver.communicate(timeout=10)
    assert said.count("recognised") == 1


def wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/")
            return
        except httpx.TransportError:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.usefixtures("unmeasured_processes")
@pytest.mark.parametrize("language", ["ts", "java"], indirect=True)
def test_a_live_client_shows_who_is_there(
    language: str, site: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address, key = site
    (tmp_path / "ada.jpg").write_bytes(portrait())
    command = find_command(language, "live", request)

    said = run(*command, address, *["ada.jpg"] * 8, cwd=tmp_path, env={**os.environ, "KEY": key})

    assert "8 no_match" in said.replace("[", "").replace("]", "")
