"""The section of the configuration about the database."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from vultus.settings.sections import Section


class DatabaseSettings(Section):
    """PostgreSQL to use; without a URL an embedded one in the data directory."""

    url: SecretStr | None = Field(None, description="postgresql://user:password@host/database of PostgreSQL ≥ 15.")
    password_file: Path | None = Field(
        None,
        description="File with the password of the URL's user, such as a container's secret, instead of in the URL.",
    )
    owner_url: SecretStr | None = Field(
        None,
        description="The same database for the role that owns the tables, migrates them and builds graphs; without it "
        "the URL's role does both.",
    )
    owner_password_file: Path | None = Field(None, description="File with the password of the owner URL's user.")
    pool_size: int = Field(10, ge=2, description="Connections kept open; writers have half, readers all.")
    pool_wait_s: float = Field(2.0, gt=0, description="Wait for a free connection before answering 503.")
    statement_timeout_ms: int = Field(15_000, ge=0, le=2**31 - 1, description="Longest SQL statement; 0 for no limit.")

    @model_validator(mode="after")
    def validate_password(self) -> Self:
        """Validate that a password is for somebody."""
        if self.password_file is not None and self.url is None:
            raise ValueError("database.password_file belongs to database.url: set both, or neither")
        if self.owner_url is not None and self.url is None:
            raise ValueError("database.owner_url belongs to database.url: set both, or neither")
        if self.owner_password_file is not None and self.owner_url is None:
            raise ValueError("database.owner_password_file belongs to database.owner_url: set both, or neither")
        return self
