"""Browsers and proxies: headers, origins, prefixes; and nginx as the manual configures it."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx
import pytest
from tests.faces import portrait
from tests.serving import serving
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from vultus.api import docs_page
from vultus.api.middleware import SECURITY_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.api.conftest import Api

ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}
MANUAL = Path(__file__).parents[2] / "docs" / "configuration.md"


async def test_every_answer_forbids_scripts_frames_and_sniffing(api: Api) -> None:
    for path in ("/v1/health/live", "/v1/nothing", "/docs", "/openapi.json", "/docs-assets/open.js", "/v1/collections"):
        answer = await api.client.get(path)
        policy = answer.headers["content-security-policy"]

        assert {name.decode() for name in SECURITY_HEADERS} <= set(answer.headers), path
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


async def test_the_documentation_has_no_script_and_no_address_outside_its_prefix(api: Api) -> None:
    page = (await api.client.get("/docs")).text

    assert re.findall(r"<script>|<style|\sstyle=|\son\w+=", page) == []
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page) + re.findall(r'url: "([^"]+)"', docs_page.SCRIPT.decode())
    assert len(addresses) == 7
    for address in addresses:
        assert urljoin("https://a/faces/docs", address).startswith("https://a/faces/")
    for address in set(addresses) - {"manual", "console"}:  # which are added to the whole server
        assert (await api.client.get(urljoin("http://vultus.test/docs", address))).status_code == 200


async def test_pages_of_named_origins_may_call_and_read_headers(serve: Callable[..., Any]) -> None:
    api: Api = await serve(server={"cors_origins": ORIGIN, "max_requests": 1})
    anybody = {"Authorization": ""}

    preflight = await api.client.options("/v1/recognize", headers=anybody | PREFLIGHT)
    simple = await api.client.get("/v1/collections", headers={"Origin": ORIGIN})
    refused = await api.client.get("/v1/collections", headers=anybody | {"Origin": ORIGIN})
    foreign = await api.client.options("/v1/recognize", headers=anybody | PREFLIGHT | {"Origin": "https://evil.test"})

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    for answer in (preflight, simple, refused):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Retry-After" in simple.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in foreign.headers


async def test_without_a_named_origin_no_page_may_call(api: Api) -> None:
    for answer in (
        await api.client.options("/v1/recognize", headers=PREFLIGHT),
        await api.client.get("/v1/collections", headers={"Origin": ORIGIN}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_prefix_of_a_trusted_proxy_reaches_redirects_and_the_document(serve: Callable[..., Any]) -> None:
    headers, unprefixed = {"X-Forwarded-Prefix": "/faces"}, [{"url": "/", "description": "This server"}]
    trusting: Api = await serve(server={"trusted_proxies": "127.0.0.1"})
    other: Api = await serve(server={"trusted_proxies": "10.0.0.0/8"})

    for api, location, servers in (
        (trusting, "/faces/v1/recognize", [{"url": "/faces"}]),
        (other, "v1/recognize", unprefixed),
    ):
        redirected = await api.client.post("/recognize", headers=headers)
        document = (await api.client.get("/openapi.json", headers=headers)).json()
        without = (await api.client.get("/openapi.json")).json()

        assert (redirected.status_code, redirected.headers["location"]) == (308, location)
        assert document["servers"] == servers
        assert without["servers"] == unprefixed
        assert (await api.client.get("/v1/version", headers=headers)).status_code == 200


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Return a function that runs nginx with the manual's example, in plain HTTP, before a server."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    running: list[subprocess.Popen[bytes]] = []

    def start(upstream: str, port: int) -> None:
        example = re.search(r"```nginx\n(.*?)```", MANUAL.read_text(), re.S)
        assert example
        text = re.sub(r"\n    ssl_\w+ .*", "", example[1]).replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
        folders = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file = tmp_path / "nginx.conf"
        file.write_text(
            f"daemon off;\nmaster_process off;\npid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{folders}{text.replace('127.0.0.1:8000', upstream)}\n}}\n"
        )
        running.append(subprocess.Popen([program, "-c", file, "-p", tmp_path], stderr=subprocess.DEVNULL))

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.mark.usefixtures("unmeasured_processes")
def test_the_manuals_nginx_example_serves_under_a_prefix(
    data_dir: Path, nginx: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setenv("VULTUS_SERVER__TRUSTED_PROXIES", "127.0.0.1")
    with serving(data_dir, first_key=True) as (address, key, _):
        nginx(address.removeprefix("http://"), unused_port)
        base = f"http://127.0.0.1:{unused_port}/faces"
        with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=30, follow_redirects=True) as client:
            _wait_until_answered(client, f"{base}/v1/health/live")
            page = client.get(f"{base}/docs").text
            document = client.get(urljoin(f"{base}/docs", "openapi.json")).json()
            asset = client.get(urljoin(f"{base}/docs", re.findall(r'src="([^"]+)"', page)[0]))
            large = client.post(f"{base}/v1/recognize", files={"photo": portrait() + bytes(3_000_000)})
            short = client.post(f"{base}/recognize", files={"photo": portrait()})
            echoed = client.get(f"{base}/v1/version", headers={"X-Request-ID": "mine"})
            ticket = client.post(f"{base}/v1/live/tickets", json={}).json()["ticket"]
            greeting = _open_live_session(base, ticket)

    assert greeting["type"] == "welcome"
    assert document["servers"] == [{"url": "/faces"}]
    assert asset.status_code == 200
    assert large.status_code == 200
    assert (short.status_code, short.url.path) == (200, "/faces/v1/recognize")
    assert re.fullmatch("[0-9a-f]{32}", echoed.headers["x-request-id"])


def _open_live_session(base: str, ticket: str) -> Any:
    """Return the greeting of a session that a page behind the proxy opens."""
    with connect(
        f"{base.replace('http', 'ws', 1)}/v1/live",
        subprotocols=[Subprotocol("vultus.live.v1"), Subprotocol(f"ticket.{ticket}")],
        origin=Origin(base.removesuffix("/faces")),
        proxy=None,
    ) as session:
        return json.loads(session.recv(10))


def _wait_until_answered(client: httpx.Client, url: str) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            if client.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until
        time.sleep(0.1)
