"""`vultus serve` as a user starts it: its own PostgreSQL, a first key, a clean stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from tests.faces import portrait
from tests.serving import STARTUP_S, serving

from vultus.server.heads import MAX_HEAD_BYTES


def postgres_of(data_dir: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data_dir / "postgres")
    ]


def test_the_first_start_gives_a_key_and_a_stop_leaves_nothing_running(data_dir: Path) -> None:
    with serving(data_dir, first_key=True) as (address, key, process):
        headers = {"Authorization": f"Bearer {key}"}
        consent = {"consent_purpose": "Tests", "consent_recorded_by": "tests"}
        registered = httpx.post(
            f"{address}/v1/register", data={"name": "Ada", **consent}, files={"photo": portrait()}, headers=headers
        )
        assert registered.status_code == 201
        assert postgres_of(data_dir)
        named = {child.name() for child in psutil.Process(process.pid).children(recursive=True)}
        assert named == {"vultus-keeper", "vultus-forker", "vultus-worker"}

    assert process.returncode == 0
    assert postgres_of(data_dir) == []

    with serving(data_dir, signal.SIGTERM) as (address, _, process):
        found = httpx.post(f"{address}/v1/recognize", files={"photo": portrait(angle=5)}, headers=headers).json()

    assert found["faces"][0]["person"]["name"] == "Ada"
    assert process.returncode == 0
    assert postgres_of(data_dir) == []


def test_a_killed_postgresql_is_restarted_and_a_closed_terminal_stops_it(data_dir: Path) -> None:
    with serving(data_dir, signal.SIGHUP) as (address, _, process):
        for postgres in postgres_of(data_dir):
            postgres.kill()
        waiting_until = time.monotonic() + STARTUP_S
        while httpx.get(f"{address}/v1/health/ready").status_code != 200:
            assert time.monotonic() < waiting_until
            time.sleep(0.2)

        assert postgres_of(data_dir)

    assert process.returncode == 0
    assert postgres_of(data_dir) == []


def test_a_port_in_use_is_reported_in_one_line(data_dir: Path) -> None:
    with serving(data_dir) as (address, _, _):
        second = subprocess.run(
            [sys.executable, "-m", "vultus", "serve", "--port", address.rsplit(":", 1)[1]],
            env={**os.environ, "VULTUS_DATA_DIR": str(data_dir)},
            capture_output=True,
            text=True,
            timeout=STARTUP_S,
        )

    assert second.returncode == 7
    assert "VULTUS_SERVER__PORT" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("line_bytes", [100, 10**9], ids=["many-headers", "one-endless-header"])
def test_an_endless_request_head_is_cut_off_without_affecting_other_requests(data_dir: Path, line_bytes: int) -> None:
    with serving(data_dir) as (address, _, process):
        host, port = address.removeprefix("http://").split(":")
        before = psutil.Process(process.pid).memory_info().rss
        with socket.create_connection((host, int(port)), timeout=10) as endless:
            endless.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: x\r\nX-Padding: ")
            line = b"a" * min(line_bytes, 4096) + (b"\r\nX-Padding: " if line_bytes < 4096 else b"")
            sent = 0
            try:
                while sent < 32 * MAX_HEAD_BYTES:
                    endless.sendall(line)
                    sent += len(line)
                    time.sleep(0.001)  # in pieces, as a slow client's head comes
            except (BrokenPipeError, ConnectionResetError):
                pass
        grown = psutil.Process(process.pid).memory_info().rss - before

        assert MAX_HEAD_BYTES <= sent < 32 * MAX_HEAD_BYTES
        assert grown < 16 * 2**20
        assert httpx.get(f"{address}/v1/health/live").status_code == 200


def test_a_request_head_that_is_too_long_is_refused_with_the_reason(data_dir: Path) -> None:
    with serving(data_dir) as (address, _, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"GET /v1/health/live HTTP/1.1\r\nX-Padding: " + b"a" * (MAX_HEAD_BYTES + 1))
            answer = b""
            while part := client.recv(4096):
                answer += part

    assert answer.split()[1] == b"431"
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer.lower()


def test_tls_files_are_checked_before_anything_starts(data_dir: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "vultus", "serve", "--port", "0"],
        env={
            **os.environ,
            "VULTUS_DATA_DIR": str(data_dir),
            "VULTUS_SERVER__TLS_CERTIFICATE": str(data_dir / "none.pem"),
            "VULTUS_SERVER__TLS_KEY": str(data_dir / "none.key"),
        },
        capture_output=True,
        text=True,
        timeout=STARTUP_S,
    )

    assert refused.returncode == 7
    assert "none.pem cannot be read: No such file or directory. Check VULTUS_SERVER__TLS_CERTIFICATE." in refused.stderr
    assert not (data_dir / "postgres").exists()
