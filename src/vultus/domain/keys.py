"""Permissions, the roles that name sets of them, and API keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Permission(StrEnum):
    """Something a principal may do."""

    RECOGNIZE = "recognize"
    """Detect, recognise, verify and compare faces in photos; list collections."""

    SCORES = "scores"
    """See cosines, probabilities, margins and candidates: enough of them reconstruct a template."""

    READ = "read"
    """Read persons, faces, consents and events, and compute embeddings."""

    SEARCH = "search"
    """Search by a vector: chosen vectors approach a template faster than photos do."""

    ENROL = "enrol"
    """Add and change persons, faces and consents."""

    ERASE = "erase"
    """Erase persons and faces, withdraw consents."""

    CONFIGURE = "configure"
    """Create, change and delete collections and webhooks, and migrate collections to another network."""

    CALIBRATE = "calibrate"
    """Measure a collection on its own faces and set its thresholds."""

    AUDIT = "audit"
    """Read the audit."""

    LIVE = "live"
    """Recognise people in live video."""

    KEYS = "keys"
    """Create, list, rotate and revoke API keys that may do no more than its own."""

    @property
    def is_writing(self) -> bool:
        """Whether a collection opened with it is changed, so that its writers are serialized."""
        return self in {Permission.ENROL, Permission.ERASE, Permission.CONFIGURE, Permission.CALIBRATE}


class Role(StrEnum):
    """A named set of permissions."""

    RECOGNIZE = "recognize"
    """Recognition alone, without scores: a door."""

    ENROL = "enrol"
    """Recognition and registration, but no erasure and no scores: a reception."""

    MANAGE = "manage"
    """Whatever concerns persons, scores included: a back office."""

    ADMIN = "admin"
    """Everything."""

    @property
    def permissions(self) -> frozenset[Permission]:
        """What it stands for."""
        return _ROLES[self]


_ROLES = {
    Role.RECOGNIZE: frozenset({Permission.RECOGNIZE}),
    Role.ENROL: frozenset({Permission.RECOGNIZE, Permission.READ, Permission.ENROL}),
    Role.MANAGE: frozenset(Permission)
    - {Permission.CONFIGURE, Permission.CALIBRATE, Permission.AUDIT, Permission.KEYS},
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """What is decided about an API key when it is created.

    Attributes:
        name: Whose key, or what it is for.
        permissions: What it may do; those of a role follow the role, if a later version changes it.
        owner: Who answers for it, if somebody does.
        role: Where the permissions come from; None for a set of its own.
        collections: Ids of the collections it may reach; None for all, those created later included.
        searches_per_hour: Faces it may search for within an hour; None for what the server allows by default.
        expires_at: From when on it is refused; None for never.
    """

    name: str
    permissions: frozenset[Permission]
    owner: str | None = None
    role: Role | None = None
    collections: frozenset[UUID] | None = None
    searches_per_hour: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(KeyGrant):
    """A key without its secrets.

    Attributes:
        last_used_at: To the minute; None if it never was.
        previous_until: Until when the secret from before the last rotation is accepted too; None if there is none.
        shown_sha256: Of the secret by which it was found; None if it was found otherwise.
    """

    id: UUID
    created_at: datetime
    last_used_at: datetime | None = None
    previous_until: datetime | None = None
    revoked_at: datetime | None = None
    shown_sha256: bytes | None = field(default=None, repr=False, compare=False)
