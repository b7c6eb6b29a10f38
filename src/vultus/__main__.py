"""The entry point, also of `python -m vultus`: an interrupt is no failure, not even while commands are imported."""

from __future__ import annotations

import signal
import sys

EXIT_INTERRUPTED = 130
"""As in `vultus.cli.failures`, which is not imported yet where this is needed."""


def main() -> None:
    """Run the command line; the program's exit code is a documented one, whenever it is interrupted."""
    try:
        from vultus.cli.app import main as run_command_line  # noqa: PLC0415  takes a while

        run_command_line()
    except KeyboardInterrupt:  # while it was imported
        sys.stderr.write("Stopped (interrupted): Run it again to go on.\n")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        # What was asked for has ended. Python would end by the signal if it came while it cleans up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
