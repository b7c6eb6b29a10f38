"""Settings of the key ring."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, HttpUrl, model_validator

from vultus.settings.sections import Section


class KeyRingSettings(Section):
    """What wraps the keys that seal templates, crops and secrets; best on another disk than the database."""

    file: Path | None = Field(
        None,
        description="The key ring, one per installation, and the same file for every process. Unset: `key-ring.json` "
        "in the custody folder.",
    )
    vault_address: HttpUrl | None = Field(
        None,
        description="Address of HashiCorp Vault or OpenBao: its transit engine is the key ring, in place of a file.",
    )
    vault_mount: str = Field("transit", description="Where the transit engine is mounted.")
    vault_key: str = Field(
        "vultus",
        description="Name of the key, of type aes256-gcm96; made if it is missing. One per installation: a rotation "
        "ends what another one's keys were wrapped by.",
    )
    vault_token_file: Path | None = Field(None, description="File with a token for Vault, read at every login.")
    vault_role: str | None = Field(
        None,
        description="Role id of AppRole, with `vault_secret_id_file`; without it, the role of Vault's login for "
        "Kubernetes.",
    )
    vault_secret_id_file: Path | None = Field(None, description="File with the secret id of AppRole.")
    vault_namespace: str | None = Field(None, description="Namespace of Vault.")
    vault_ca_file: Path | None = Field(None, description="Certificates that Vault's is checked by; unset: public ones.")
    vault_timeout_s: float = Field(10.0, gt=0, le=120, description="Longest wait for an answer of Vault.")

    @model_validator(mode="after")
    def validate_login(self) -> Self:
        """Refuse a Vault beside a file, or without a login."""
        logins = (self.vault_token_file, self.vault_role)
        if self.vault_address is None:
            if any(logins):
                raise ValueError("key_ring.vault_token_file and vault_role belong to vault_address: set it, too")
            return self
        if self.file is not None:
            raise ValueError("the key ring is a file or in Vault: unset key_ring.file or key_ring.vault_address")
        if sum(one is not None for one in logins) != 1:
            raise ValueError("key_ring.vault_address needs a login: set vault_token_file or vault_role")
        if self.vault_secret_id_file is not None and self.vault_role is None:
            raise ValueError("key_ring.vault_secret_id_file needs vault_role")
        return self
