from __future__ import annotations

import pytest

from vultus.db.database import Database
from vultus.errors import KeyRingError
from vultus.sealing.custody import Custody
from vultus.services.secret_vault import SecretDamagedError, SecretVault


async def test_a_secret_opens_only_in_its_context_and_with_its_key(database: Database, custody: Custody) -> None:
    vault = SecretVault(custody.keys)
    with pytest.raises(KeyRingError, match=str(custody.keys.path)):
        vault.seal(b"password", "source:a")
    async with database.transaction() as work:
        await vault.hold_keys(work)
    sealed = vault.seal(b"password", "source:a")

    assert vault.unseal(sealed, "source:a") == b"password"
    assert b"password" not in sealed
    assert sealed != vault.seal(b"password", "source:a")
    with pytest.raises(SecretDamagedError):
        vault.unseal(sealed, "source:b")
    with pytest.raises(SecretDamagedError):
        vault.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), "source:a")
    custody.keys.path.unlink()
    with pytest.raises(KeyRingError, match="are missing"):
        vault.unseal(sealed, "source:a")
    with pytest.raises(KeyRingError, match="is there, and"):
        custody.keys.create()
    (custody.keys.path.parent.parent / "ring.json").unlink()
    custody.keys.create()  # another installation's
    with pytest.raises(SecretDamagedError):
        vault.unseal(sealed, "source:a")
    with pytest.raises(KeyRingError, match=r"crops\.key"):
        vault.unseal(bytes(40), "source:a")
