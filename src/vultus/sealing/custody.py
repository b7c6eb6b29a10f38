"""The custody folder's keys, as every service and command uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.sealing.key_ring import FileKeyRing
from vultus.sealing.key_store import KeyStore
from vultus.sealing.person_keys import PersonKeyFile
from vultus.sealing.vault_key_ring import VaultKeyRing

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.sealing.key_ring import KeyRing
    from vultus.settings import Settings


@dataclass(frozen=True, slots=True)
class Custody:
    """The keys of an installation: nothing is read before it is needed.

    Attributes:
        keys: The installation's own keys, wrapped by the key ring.
        person_keys: One key per person, wrapped by the installation's.
    """

    keys: KeyStore
    person_keys: PersonKeyFile

    @classmethod
    def open(cls, folder: Path, ring: KeyRing) -> Custody:
        """Return the keys in a folder, which need not exist yet."""
        store = KeyStore(folder / "keys.json", ring)
        return cls(store, PersonKeyFile(folder / "persons.keys", store))


def open_custody(settings: Settings) -> Custody:
    """Return the keys that an installation's settings name."""
    ring = VaultKeyRing(settings.key_ring) if settings.key_ring.vault_address else FileKeyRing(settings.key_ring_file)
    return Custody.open(settings.custody, ring)
