"""`vultus serve` as a user starts it: its own PostgreSQL, a first key, a clean end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from tests.faces import portrait

STARTUP_S = 60


@contextmanager
def serving(data_dir: Path, end: signal.Signals = signal.SIGINT) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """Yield address, everything announced, and the process; it is ended by a signal, as Ctrl-C would."""
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed below, after the process
    process = subprocess.Popen(
        [sys.executable, "-m", "vultus", "serve", "--port", "0"],
        env={**os.environ, "VULTUS_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "answers on" in line:
                break
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        log.seek(0)
        assert address, said + log.read()
        yield address.group(), said, process
    finally:
        if process.poll() is None:
            process.send_signal(end)
        process.communicate(timeout=STARTUP_S)
        log.close()


def postgres_of(data_dir: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and str(data_dir) in " ".join(process.info["cmdline"] or [])
    ]


def test_the_first_start_gives_a_key_and_a_stop_leaves_nothing_running(data_dir: Path) -> None:
    with serving(data_dir) as (address, _, process):
        assert process.stdout is not None
        key = ""
        while not key:
            key = "".join(re.findall(r"vultus_\S+", process.stdout.readline()))
        headers = {"Authorization": f"Bearer {key}"}
        consent = {"consent_purpose": "Tests", "consent_recorded_by": "tests"}
        registered = httpx.post(
            f"{address}/v1/register", data={"name": "Ada", **consent}, files={"photo": portrait()}, headers=headers
        )
        assert registered.status_code == 201
        assert postgres_of(data_dir)

    assert process.returncode == 0
    assert postgres_of(data_dir) == []

    with serving(data_dir, signal.SIGTERM) as (address, _, process):
        found = httpx.post(f"{address}/v1/recognize", files={"photo": portrait(angle=5)}, headers=headers).json()

    assert found["faces"][0]["candidates"][0]["name"] == "Ada"
    assert process.returncode == 0
    assert postgres_of(data_dir) == []


def test_a_killed_postgresql_is_started_again(data_dir: Path) -> None:
    with serving(data_dir) as (address, _, _):
        for process in postgres_of(data_dir):
            process.kill()
        waiting_until = time.monotonic() + STARTUP_S
        while httpx.get(f"{address}/v1/health/ready").status_code != 200:
            assert time.monotonic() < waiting_until
            time.sleep(0.2)

        assert postgres_of(data_dir)


def test_a_port_in_use_is_said_in_one_line(data_dir: Path) -> None:
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
