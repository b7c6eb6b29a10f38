"""What ends a process, and what it is called."""

from __future__ import annotations

import signal
import subprocess
import sys

from vultus.utils.processes import list_end_signals


def test_a_closed_terminal_ends_a_process_unless_nohup_has_it_ignored() -> None:
    assert list_end_signals() == (signal.SIGTERM, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert list_end_signals() == (signal.SIGTERM,)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_is_named() -> None:
    script = (
        "from vultus.utils.processes import name_process; name_process('vultus-worker');"
        "print(open('/proc/self/comm').read())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "vultus-worker"
