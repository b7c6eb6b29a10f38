"""Who calls, and what they may do: every service method takes a principal first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from uuid import UUID

from vultus.domain.galleries import ApiKey, Role
from vultus.errors import ForbiddenError


class Permission(StrEnum):
    """Something a principal may do."""

    RECOGNIZE = "recognize"
    """Detect, recognise, verify and compare faces in photos; list collections."""

    READ = "read"
    """Read persons, faces and consents, and compute embeddings."""

    SEARCH = "search"
    """Search by a vector: chosen vectors can reconstruct templates from the scores."""

    ENROL = "enrol"
    """Add and change persons, faces and consents."""

    ERASE = "erase"
    """Erase persons and faces, withdraw consents."""

    CONFIGURE = "configure"
    """Create, change and delete collections, and migrate them to another network."""

    CALIBRATE = "calibrate"
    """Measure a collection on its own faces and set its thresholds."""

    AUDIT = "audit"
    """Read the audit."""

    KEYS = "keys"
    """Create, list and revoke API keys."""

    @property
    def is_writing(self) -> bool:
        """Whether a collection opened with it is changed, so that its writers are serialized."""
        return self in {Permission.ENROL, Permission.ERASE, Permission.CONFIGURE, Permission.CALIBRATE}

    @property
    def least_role(self) -> Role:
        """The least role that has it."""
        return next(role for role in Role if self in PERMISSIONS[role])


_RECOGNIZE = frozenset({Permission.RECOGNIZE})
_ENROL = _RECOGNIZE | {Permission.READ, Permission.SEARCH, Permission.ENROL, Permission.ERASE}

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.RECOGNIZE: _RECOGNIZE,
    Role.ENROL: _ENROL,
    Role.ADMIN: frozenset(Permission),
}
"""What each role may do."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The originator of a call.

    Attributes:
        id: For the audit: `key:` and an API key's id, or the name of a command or job.
        permissions: What it may do.
        role: Where the permissions come from, for the words of a refusal; None for commands and jobs.
        collections: Ids of the collections it may reach; None for all.
        request_id: Of the HTTP request.
    """

    id: str
    permissions: frozenset[Permission]
    role: Role | None = None
    collections: frozenset[UUID] | None = None
    request_id: str | None = None

    @classmethod
    def from_key(cls, key: ApiKey, request_id: str | None = None) -> Self:
        """Build the principal of a request made with an API key."""
        return cls(f"key:{key.id}", PERMISSIONS[key.role], key.role, request_id=request_id)

    @classmethod
    def from_process(cls, name: str) -> Self:
        """Build the principal of a command or job of this installation, which may do everything."""
        return cls(name, frozenset(Permission))

    def require(self, permission: Permission) -> None:
        """Return if the principal has a permission.

        Raises:
            ForbiddenError: It has not; the detail names the least role that has.
        """
        if permission in self.permissions:
            return
        needed = permission.least_role
        has = f"this key has '{self.role}'" if self.role else f"'{self.id}' has it not"
        raise ForbiddenError(f"This needs a key with role '{needed}'; {has}.", needed=needed.value)

    def can_reach(self, collection_id: UUID) -> bool:
        """Return whether a collection exists for the principal."""
        return self.collections is None or collection_id in self.collections
