from __future__ import annotations

from pathlib import Path

import pytest

from vultus.db.database import Database
from vultus.errors import KeyFileError
from vultus.services.secret_vault import SecretDamagedError, SecretVault


async def test_a_secret_opens_only_in_its_context_and_with_its_key(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "crops.key"
    vault = SecretVault(path)
    with pytest.raises(KeyFileError, match=str(path)):
        vault.seal(b"password", "source:a")
    async with database.transaction() as work:
        await vault.ensure_key(work)
    sealed = vault.seal(b"password", "source:a")

    assert vault.unseal(sealed, "source:a") == b"password"
    assert b"password" not in sealed
    assert sealed != vault.seal(b"password", "source:a")
    with pytest.raises(SecretDamagedError):
        vault.unseal(sealed, "source:b")
    with pytest.raises(SecretDamagedError):
        vault.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), "source:a")
    path.write_bytes(bytes(32))
    with pytest.raises(KeyFileError, match="sealed with"):
        vault.unseal(sealed, "source:a")
    with pytest.raises(KeyFileError, match="this secret"):
        vault.unseal(b"", "source:a")
