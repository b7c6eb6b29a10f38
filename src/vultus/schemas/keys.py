"""API keys: requests and responses."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime
from typing import Self

from pydantic import Field, model_validator

from vultus import domain
from vultus.schemas.base import ApiModel, CollectionId, KeyId, Name, RecordedAt, Reference, Timestamp, WholeNumber
from vultus.services.access import MAX_OVERLAP_S


class KeyIn(ApiModel):
    """A new API key: with a role, or with permissions of its own."""

    name: Name = Field(examples=["turnstile"])
    owner: Name | None = Field(None, description="Who answers for it.", examples=["facilities@example.org"])
    role: domain.Role | None = Field(None, description="`recognize` if neither it nor permissions are given.")
    permissions: list[domain.Permission] | None = Field(
        None, min_length=1, max_length=len(domain.Permission), description="Instead of a role.", examples=[None]
    )
    collections: list[Reference] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description="Ids or names of the collections it may reach; for it no other exists. Null for all.",
        examples=[["default"]],
    )
    searches_per_hour: WholeNumber | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Faces it may search for within an hour; null for the server's default.",
        examples=[1000],
    )
    expires_at: Timestamp | None = Field(None, description="From when on it is refused; null for never.")

    @model_validator(mode="after")
    def validate_single_source(self) -> Self:
        """Reject permissions beside a role."""
        if self.role is not None and self.permissions is not None:
            raise ValueError("give either role or permissions")
        return self

    def get_permissions(self) -> domain.Role | Set[domain.Permission]:
        """Return the role or the permissions; least privilege by default."""
        if self.permissions is not None:
            return frozenset(self.permissions)
        return self.role or domain.Role.RECOGNIZE


class KeyRotationIn(ApiModel):
    """How a key's secret is replaced."""

    overlap_s: WholeNumber = Field(
        86_400, ge=0, le=int(MAX_OVERLAP_S), description="How long the present secret is accepted too, in seconds."
    )


class KeyOut(ApiModel):
    """An API key without its secret."""

    id: KeyId
    name: str = Field(examples=["turnstile"])
    owner: str | None = Field(examples=["facilities@example.org"])
    role: domain.Role | None = Field(
        description="Where the permissions come from; null for a set of its own.", examples=["recognize"]
    )
    permissions: list[domain.Permission] = Field(examples=[["recognize"]])
    collections: list[CollectionId] | None = Field(description="The only ones it may reach; null for all.")
    searches_per_hour: int | None = Field(description="Null for the server's default.", examples=[1000])
    created_at: RecordedAt
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To about a minute.")
    previous_until: datetime | None = Field(
        description="Until when the secret from before the last rotation is accepted."
    )
    revoked_at: datetime | None

    @classmethod
    def from_domain(cls, key: domain.ApiKey, **more: object) -> Self:
        """Build the response from a domain value."""
        names = cls.model_fields.keys() - {"permissions", "collections", *more}
        return cls(
            **{name: getattr(key, name) for name in names},
            permissions=[one for one in domain.Permission if one in key.permissions],
            collections=None if key.collections is None else sorted(key.collections),
            **more,
        )


class NewKeyOut(KeyOut):
    """An API key with its secret, shown this once."""

    secret: str = Field(description="Keep it; only its digest is stored.", examples=["vultus_N2Qx...shown once"])
