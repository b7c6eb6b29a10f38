"""What an installation remembers about its networks: pinned digests, accepted licences, the chosen pack, thresholds.

One JSON file in the models folder, replaced as a whole; a change is made under a lock, so that two commands at a time
do not undo each other.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vultus.domain import Calibration
from vultus.errors import WeightsError
from vultus.models.weights.files import place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vultus.models.catalog.entries import Licence


class Records:
    """The file; a folder of None remembers nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def pinned(self, filename: str) -> str | None:
        """Return the SHA-256 of the first file that was placed under this name."""
        found: str | None = self._read().get("pins", {}).get(filename)
        return found

    def pin(self, filename: str, sha256: str) -> None:
        """Remember the digest of a file that nobody published one for."""
        with self._changing() as values:
            values.setdefault("pins", {})[filename] = sha256

    def unpin(self, filename: str) -> None:
        """Forget the digest of a file."""
        with self._changing() as values:
            values.get("pins", {}).pop(filename, None)

    def accepted(self, licence: Licence) -> bool:
        """Say whether somebody accepted a licence."""
        return licence.name in self._read().get("acceptances", {})

    def accept(self, licence: Licence, *, who: str) -> None:
        """Remember who accepted a licence, and when."""
        with self._changing() as values:
            values.setdefault("acceptances", {}).setdefault(
                licence.name,
                {"by": who, "at": datetime.now(UTC).isoformat(timespec="seconds"), "terms": licence.terms},
            )

    def acceptances(self) -> dict[str, dict[str, str]]:
        """Return by, at and terms of every acceptance, by licence."""
        found: dict[str, dict[str, str]] = self._read().get("acceptances", {})
        return found

    def chosen(self) -> tuple[str, ...]:
        """Return the packs to load, the default one first; empty when none was chosen."""
        return tuple(self._read().get("packs", ()))

    def choose(self, pack: str, before: str) -> tuple[str, ...]:
        """Make a pack the default; those used before stay loaded. Return all of them."""
        with self._changing() as values:
            packs = list(dict.fromkeys([pack, *(values.get("packs") or [before])]))
            values["packs"] = packs
        return tuple(packs)

    def calibration(self, contract_id: str) -> Calibration | None:
        """Return the thresholds that were measured here for a contract."""
        stored = self._read().get("calibrations", {}).get(contract_id)
        if stored is None:
            return None
        points = tuple((float(rate), float(threshold)) for rate, threshold in stored.pop("points"))
        logistic = tuple(stored.pop("logistic", None) or ())
        return Calibration(points=points, logistic=logistic or None, **stored)

    def keep_calibration(self, contract_id: str, calibration: Calibration) -> None:
        """Remember thresholds for a contract."""
        with self._changing() as values:
            values.setdefault("calibrations", {})[contract_id] = asdict(calibration)

    def _read(self) -> dict[str, Any]:
        if self._folder is None:
            return {}
        path = self._folder / "records.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it holds no object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read: {error}. Restore it, or remove it and pull again.") from error
        return values

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        if self._folder is None:
            raise WeightsError("There is no models folder to remember this in.")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "records.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            values = self._read()
            yield values
            text = json.dumps(values, indent=1, ensure_ascii=False)
            place(self._folder / "records.json", text.encode())
        finally:
            os.close(descriptor)
