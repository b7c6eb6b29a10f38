"""`vultus serve` as a user starts it: its own PostgreSQL, a first key, a clean stop."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
from tests.faces import portrait
from tests.serving import STARTUP_S, serving
from typer.testing import CliRunner

from vultus.cli.app import app


def postgres_of(data_dir: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data_dir / "postgres")
    ]


def ask_health(address: str, *options: str) -> tuple[int, str]:
    port = address.rpartition(":")[2]
    done = CliRunner().invoke(
        app, ["health", *options], env={"VULTUS_SERVER__PORT": port, "VULTUS_SERVER__HOST": "0.0.0.0"}
    )
    return done.exit_code, done.output


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
        assert ask_health(address) == (0, "ok\n")
        assert ask_health(address, "--live") == (0, "ok\n")
        found = httpx.post(f"{address}/v1/recognize", files={"photo": portrait(angle=5)}, headers=headers).json()

    assert found["faces"][0]["person"]["name"] == "Ada"
    assert process.returncode == 0
    assert postgres_of(data_dir) == []
    code, said = ask_health(address)
    assert code == 1
    assert "Nothing serves at 127.0.0.1:" in said


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


def refuse(data_dir: Path, *options: str, **settings: str) -> str:
    """Run `vultus serve`, which ends before it starts anything, and return why."""
    environment = {"VULTUS_DATA_DIR": str(data_dir), "COLUMNS": "1000"}
    environment |= {f"VULTUS_SERVER__{name.upper()}": value for name, value in settings.items()}
    ended = CliRunner().invoke(app, ["serve", *options], env=environment)

    assert ended.exit_code == 7
    assert "Traceback" not in ended.stderr
    assert not (data_dir / "postgres").exists()
    return ended.stderr


def test_a_port_in_use_is_reported_in_one_line(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = refuse(data_dir, "--port", str(other.getsockname()[1]))

    assert "VULTUS_SERVER__PORT" in said
    assert len(said.strip().splitlines()) == 1


def test_tls_files_are_checked_before_anything_starts(data_dir: Path) -> None:
    said = refuse(
        data_dir, "--port", "0", tls_certificate=str(data_dir / "none.pem"), tls_key=str(data_dir / "none.key")
    )

    assert "none.pem cannot be read: No such file or directory. Check VULTUS_SERVER__TLS_CERTIFICATE." in said
