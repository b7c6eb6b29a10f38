"""Provenance of a report: program, commit, pack and machine."""

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
    """What is needed to reproduce a report.

    Attributes:
        created_at: ISO 8601, UTC.
        version: Of Vultus.
        commit: Of the checkout the program runs from, `-dirty` appended with changes; None when installed otherwise.
        pack: Model pack.
        contract_id: Id of the embedding space.
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


def build_provenance(*, pack: str, contract_id: str, command: str) -> Provenance:
    """Describe this run."""
    return Provenance(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        commit=find_commit(Path(__file__).parents[3]),
        pack=pack,
        contract_id=contract_id,
        cpu=read_cpu_model(Path("/proc/cpuinfo")),
        cores=_count_cores(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        command=command,
    )


def find_commit(root: Path) -> str | None:
    """Return the commit checked out at the top of a checkout; None where there is none or git is not installed."""
    git = shutil.which("git")
    # Only the program's own checkout: an environment may lie inside another one.
    if git is None or not (root / ".git").exists():
        return None
    completed = subprocess.run(  # noqa: S603 - a fixed command line
        [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return completed.stdout.strip() or None


def read_cpu_model(cpu_info_file: Path) -> str:
    """Return the processor's model name, from `cpu_info_file` where it exists."""
    if cpu_info_file.is_file():
        for line in cpu_info_file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
