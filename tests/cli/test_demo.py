"""`vultus demo`: names appear by themselves, what it prints works as printed, and nothing of it stays."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.weights import FOLDER, real_weights

from vultus.demo.people import CAST
from vultus.demo.surroundings import build_settings
from vultus.models.catalog.packs import BUILTIN, RECOMMENDED
from vultus.settings import ModelSettings, Settings

END_S = 150
NAMES = "|".join(character.name for character in CAST)


@contextmanager
def demonstrating(folder: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo with a folder for temporary files; it ends with the block at the latest."""
    folder.chmod(0o711)  # for the user that runs PostgreSQL
    process = subprocess.Popen(
        [sys.executable, "-m", "vultus", "demo", "--no-browser", *options],
        env={**os.environ, "TMPDIR": str(folder), "VULTUS_DATA_DIR": str(folder / "installed"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(END_S, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=END_S)
        watchdog.cancel()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Return what was printed up to a line with a pattern."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if re.search(pattern, line):
            return read
    raise AssertionError(read)


def list_processes(folder: Path) -> list[str]:
    """Return the names of the processes that work in a folder or have its path among their arguments."""
    found = []
    for process in psutil.process_iter(["name", "cwd", "cmdline"]):
        words = [process.info["cwd"] or "", *(process.info["cmdline"] or [])]
        if any(str(folder) in word for word in words):
            found.append(process.info["name"])
    return found


@pytest.mark.usefixtures("unmeasured_processes")
def test_the_demo_names_who_passes_and_its_commands_work_as_printed(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with demonstrating(data_dir, VULTUS_SERVER__PORT=port) as process:
            tour = read_until(process, "Ctrl-C ends the demo")
            export, recognise, *_ = (line for line in tour.splitlines() if re.match("  (export|curl)", line))
            (persons,) = (line for line in tour.splitlines() if line.endswith("persons list"))
            script = f"{export}\n{recognise} -sS\n{persons}"
            ran = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=False, timeout=END_S)
            assert list_processes(data_dir)
            read_until(process, f"({NAMES}) was recognised at the camera")

    assert f":{port}/" not in tour
    assert not re.search(r"http\S*vultus_", tour), "a key stands in an address"
    assert ran.returncode == 0, ran.stderr
    assert {name for name in NAMES.split("|") if f'"{name}"' in ran.stdout} == {CAST[at].name for at in (0, 3, 5)}
    assert all(character.name in ran.stdout.rpartition("}")[2] for character in CAST)
    assert process.returncode == 0
    assert list_processes(data_dir) == []
    assert list(data_dir.iterdir()) == []


@pytest.mark.usefixtures("unmeasured_processes")
def test_a_demo_ends_by_itself(data_dir: Path) -> None:
    with demonstrating(data_dir, "--for", "0") as process:
        read_until(process, "everything that it made is gone")
        process.wait(END_S)

    assert process.returncode == 0
    assert list_processes(data_dir) == []
    assert list(data_dir.iterdir()) == []


def test_the_demo_takes_the_best_networks_that_are_here_and_nothing_else_of_the_installation(tmp_path: Path) -> None:
    file = next(iter(RECOMMENDED.embedder.files.values()))
    real_weights(file.filename)
    installed = Settings(data_dir=tmp_path / "installed", models=ModelSettings(dir=FOLDER))

    with_weights = build_settings(installed, tmp_path / "demo", None)
    without = build_settings(Settings(data_dir=tmp_path / "installed"), tmp_path / "demo", None)

    assert (with_weights.inference.pack, without.inference.pack) == (RECOMMENDED.name, BUILTIN.name)
    assert with_weights.models.offline
    assert with_weights.database.url is None
    assert with_weights.data_dir == tmp_path / "demo"
