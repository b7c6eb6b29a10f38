"""What an installation has written down about its networks: digests, accepted licences, thresholds, the default pack.

JSON files in the models folder, written whole under a lock.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import logging
import os
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vultus import __version__
from vultus.domain import Calibration
from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.models.catalog.entries import Network

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ACCEPTANCES = "acceptances.json"
CHOICE = "use.json"


class Records:
    """The records of one models folder.

    Args:
        folder: The models folder; made on the first write, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def digest(self, filename: str) -> str | None:
        """Return the SHA-256 a file had when it was placed; None when it never was."""
        found: str | None = self._read(MANIFEST, {}).get(filename, {}).get("sha256")
        return found

    def note(self, filename: str, sha256: str, *, source: str) -> None:
        """Write down the digest of a file that is about to be placed, and where it comes from."""
        with self.locked("records"):
            manifest = self._read(MANIFEST, {})
            manifest[filename] = {"sha256": sha256, "source": source, "placed_at": _now()}
            self._write(MANIFEST, manifest)

    def accepted(self, network: Network) -> bool:
        """Say whether somebody accepted the network's licence, by the name it has now."""
        return any(
            (one["network"], one["licence"]) == (network.name, network.licence.name)
            for one in self._read(ACCEPTANCES, [])
        )

    def accept(self, network: Network) -> None:
        """Write down that this user of the operating system accepts the network's licence."""
        with self.locked("records"):
            taken = {
                "network": network.name,
                "licence": network.licence.name,
                "terms": network.licence.terms,
                "by": _user(),
                "at": _now(),
                "vultus": __version__,
            }
            self._write(ACCEPTANCES, [*self._read(ACCEPTANCES, []), taken])

    def calibration(self, contract_id: str) -> Calibration | None:
        """Return the thresholds kept for a vector space; None without any."""
        kept = self._read(self._calibration_file(contract_id), None)
        if kept is None:
            return None
        return Calibration(tuple((rate, at) for rate, at in kept["points"]), kept["margin"], kept["source"])

    def keep_calibration(self, contract_id: str, calibration: Calibration) -> Path:
        """Keep thresholds measured for a vector space, and return the file they are in."""
        with self.locked("records"):
            return self._write(
                self._calibration_file(contract_id),
                {"points": calibration.points, "margin": calibration.margin, "source": calibration.source},
            )

    def chosen_pack(self) -> str | None:
        """Return the pack `vultus models use` chose; None when it never did."""
        found: str | None = self._read(CHOICE, {}).get("pack")
        return found

    def choose_pack(self, name: str) -> None:
        """Make a pack the default of this installation."""
        with self.locked("records"):
            self._write(CHOICE, {"pack": name, "by": _user(), "at": _now()})

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold a lock between processes, waiting for whoever holds it; it goes with the process."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / f".{what}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("another process is at work in %s; waiting for it", self.folder)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _calibration_file(self, contract_id: str) -> str:
        return f"calibrations/{contract_id.replace('/', '-')}.json"

    def _read(self, name: str, default: Any) -> Any:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read: {error}. Mend or remove it.") from error

    def _write(self, name: str, value: Any) -> Path:
        path = self.folder / name
        place(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
        return path


def place(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing, also when the machine stops half-way.

    Its folder is made readable by its owner only.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)  # noqa: PTH105 - the name of an open temporary file
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
