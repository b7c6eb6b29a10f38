"""`vultus serve` as a user starts it, in a process of its own that is stopped with the test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vultus.cli.serving import FIRST_KEY_FILE

STARTUP_S = 60


@contextmanager
def serving(
    data_dir: Path, end: signal.Signals = signal.SIGINT, *, first_key: bool = False
) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """Yield address, the first administrator's key if requested, and the process; stop it as Ctrl-C does."""
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
        address = None
        for line in process.stdout:
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        log.seek(0)
        assert address, log.read()
        yield address.group(), (data_dir / FIRST_KEY_FILE).read_text().strip() if first_key else "", process
    finally:
        if process.poll() is None:
            process.send_signal(end)
        process.communicate(timeout=STARTUP_S)
        log.close()
