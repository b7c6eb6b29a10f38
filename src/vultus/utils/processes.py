"""Names of processes, as `ps` and `top` show them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def name_process(name: str) -> None:
    """Name this process, in at most 15 letters; only Linux shows it."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
