"""Persistent state of an installation: pinned digests, accepted licences, chosen packs, calibrations.

One JSON file in the models folder, replaced atomically; updates hold a lock, so that concurrent commands do not undo
each other.
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
from vultus.models.weights.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vultus.models.catalog.entries import Licence


class InstallationState:
    """State file of an installation; nothing is persisted where `folder` is None."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find_pinned_digest(self, filename: str) -> str | None:
        """Return the SHA-256 of the first file that was stored under this name; None if there was none."""
        found: str | None = self._read_state().get("pins", {}).get(filename)
        return found

    def add_pinned_digest(self, filename: str, sha256: str) -> None:
        """Pin the digest of a file whose publisher states none."""
        with self._update_state() as values:
            values.setdefault("pins", {})[filename] = sha256

    def delete_pinned_digest(self, filename: str) -> None:
        """Delete the pinned digest of a file, if any."""
        with self._update_state() as values:
            values.get("pins", {}).pop(filename, None)

    def is_licence_accepted(self, licence: Licence) -> bool:
        """Return whether a licence was accepted."""
        return licence.name in self._read_state().get("acceptances", {})

    def add_acceptance(self, licence: Licence, *, accepted_by: str) -> None:
        """Record who accepted a licence, and when; an earlier acceptance is kept."""
        with self._update_state() as values:
            values.setdefault("acceptances", {}).setdefault(
                licence.name,
                {"by": accepted_by, "at": datetime.now(UTC).isoformat(timespec="seconds"), "terms": licence.terms},
            )

    def get_acceptances(self) -> dict[str, dict[str, str]]:
        """Return `by`, `at` and `terms` of every acceptance, keyed by licence name."""
        found: dict[str, dict[str, str]] = self._read_state().get("acceptances", {})
        return found

    def list_chosen_packs(self) -> tuple[str, ...]:
        """Return the packs to load, the default one first; empty when none was chosen."""
        return tuple(self._read_state().get("packs", ()))

    def set_default_pack(self, pack: str, previous: str) -> tuple[str, ...]:
        """Make a pack the default and return all packs to load: those chosen before stay loaded."""
        with self._update_state() as values:
            packs = list(dict.fromkeys([pack, *(values.get("packs") or [previous])]))
            values["packs"] = packs
        return tuple(packs)

    @property
    def has_fetch_failed(self) -> bool:
        """Whether the weights of the recommended pack were tried to be fetched, in vain."""
        return bool(self._read_state().get("fetch_failed_at"))

    def record_failed_fetch(self) -> None:
        """Record that the weights of the recommended pack could not be fetched, and when."""
        with self._update_state() as values:
            values["fetch_failed_at"] = datetime.now(UTC).isoformat(timespec="seconds")

    def find_calibration(self, space_id: str) -> Calibration | None:
        """Return the calibration this installation measured for an embedding space; None if there is none."""
        stored = self._read_state().get("calibrations", {}).get(space_id)
        return None if stored is None else Calibration.from_document(stored)

    def save_calibration(self, space_id: str, calibration: Calibration) -> None:
        """Persist the calibration of an embedding space."""
        with self._update_state() as values:
            values.setdefault("calibrations", {})[space_id] = asdict(calibration)

    def _read_state(self) -> dict[str, Any]:
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
    def _update_state(self) -> Iterator[dict[str, Any]]:
        if self._folder is None:
            raise WeightsError("There is no models folder to remember this in.")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "records.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            values = self._read_state()
            yield values
            text = json.dumps(values, indent=1, ensure_ascii=False)
            write_atomically(self._folder / "records.json", text.encode())
        finally:
            os.close(descriptor)
