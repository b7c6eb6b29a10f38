"""What `vultus doctor` says of the keys: whether they open, and whether a thief of one disk would have everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.sealing.custody import open_custody

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.settings import Settings


class CheckFailedError(Exception):
    """A check that did not pass; the text says how to fix it."""


def check_keys(settings: Settings) -> str:
    """Return which keys seal what is in the database, with a caution where they lie beside it.

    Raises:
        CheckFailedError: Others can read them, or a file of theirs is missing.
        KeyRingError: They do not open.
    """
    custody, ring = open_custody(settings), settings.key_ring
    in_vault = ring.vault_address is not None
    files = [custody.keys.path, custody.person_keys.path, *([] if in_vault else [settings.key_ring_file])]
    for file in files:
        if file.exists() and file.stat().st_mode & 0o077:
            raise CheckFailedError(f"{file} can be read by others: chmod 600 '{file}'")
    if not custody.keys.exists():
        if custody.person_keys.path.exists():
            raise CheckFailedError(
                f"{custody.keys.path} is missing, and persons' keys are there: put it back from your copy."
            )
        return f"{custody.keys.path} is made with the first start, and wrapped by {custody.keys.ring.description}"
    versions = len(custody.keys.load().secrets)
    counts = custody.person_keys.count_keys()
    unfinished = "; a rotation is not finished: vultus key-ring rotate" if versions > 1 else ""
    caution = "" if in_vault else _describe_place(settings)
    persons = sum(counts.by_version.values())
    return f"{custody.keys.ring.description} opens {custody.keys.path}; {persons} keys of persons{unfinished}{caution}"


def ensure_keys_of_sealed(settings: Settings, *, is_sealed: bool, has_persons: bool) -> None:
    """Check that the files are there without which what the database has sealed is lost.

    Args:
        settings: Where they are.
        is_sealed: Whether anything in the database is sealed.
        has_persons: Whether persons have keys.

    Raises:
        CheckFailedError: One is missing.
    """
    custody = open_custody(settings)
    needed = {custody.keys.path: is_sealed, custody.person_keys.path: has_persons}
    missing = [str(file) for file, is_needed in needed.items() if is_needed and not file.exists()]
    if missing:
        raise CheckFailedError(
            f"something in the database is sealed, and {' and '.join(missing)} cannot be found: put the custody folder "
            "back from your copy, or name it in VULTUS_CUSTODY_DIR; without it what is sealed cannot be read."
        )


def _describe_place(settings: Settings) -> str:
    """Return a caution if the key ring lies where the database or what it wraps does."""
    ring, data_dir = settings.key_ring_file, settings.data_dir
    remedy = "VULTUS_KEY_RING__FILE names another disk, VULTUS_KEY_RING__VAULT_ADDRESS a Vault"
    if ring.resolve().is_relative_to(data_dir.resolve()):
        return f"; the key ring lies in the data directory, so whoever has a copy of it can read all: {remedy}"
    if settings.custody.resolve().is_relative_to(data_dir.resolve()):
        return (
            "; the keys of persons lie in the data directory, and a backup of it would bring destroyed ones back: "
            "VULTUS_CUSTODY_DIR names another place"
        )
    if settings.database.url is None and _is_one_disk(ring, data_dir):
        return f"; the key ring and the database lie on one file system, so a stolen disk has both: {remedy}"
    if _is_one_disk(ring, settings.custody):
        return f"; the key ring lies on the file system of the keys that it wraps, so a stolen disk has both: {remedy}"
    return ""


def _is_one_disk(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.stat().st_dev == other.stat().st_dev
