"""Where a number comes from: program, commit, pack and machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vultus import __version__


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a report needs to be made again.

    Attributes:
        created_at: ISO 8601, UTC.
        version: Of Vultus.
        commit: Of the checkout the program runs from, `-dirty` appended with changes; None when installed otherwise.
        pack: Model pack.
        contract_id: Vector space.
        cpu: Model name of the processor.
        cores: Logical ones the process may use.
        system: Operating system and Python.
        command: How the report was made.
    """

    created_at: str
    version: str
    commit: str | None
    pack: str
    contract_id: str
    cpu: str
    cores: int
    system: str
    command: str


def provenance(*, pack: str, contract_id: str, command: str) -> Provenance:
    """Describe this run."""
    return Provenance(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        commit=commit(Path(__file__).parents[3]),
        pack=pack,
        contract_id=contract_id,
        cpu=cpu_model(Path("/proc/cpuinfo")),
        cores=_cores(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        command=command,
    )


def commit(root: Path) -> str | None:
    """Return the commit checked out at the top of a checkout; None where there is none or no git to ask."""
    git = shutil.which("git")
    # Only the program's own checkout: an environment may lie inside somebody else's.
    if git is None or not (root / ".git").exists():
        return None
    asked = subprocess.run(  # noqa: S603 - a fixed command line
        [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return asked.stdout.strip() or None


def cpu_model(information: Path) -> str:
    """Return the processor's name, from Linux's list where there is one."""
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
