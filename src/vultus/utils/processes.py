"""Names of processes, and the signals that end them."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path


def name_process(name: str) -> None:
    """Name this process, in at most 15 letters; only Linux shows it."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def list_end_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a process to end, but for Ctrl-C; without SIGHUP where `nohup` has it ignored."""
    ignores_closed_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM,) if ignores_closed_terminal else (signal.SIGTERM, signal.SIGHUP)
