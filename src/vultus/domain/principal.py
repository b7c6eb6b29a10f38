"""Who calls, and what they may do: every service method takes a principal first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from uuid import UUID

from vultus.domain.keys import ApiKey, KeyGrant, Permission
from vultus.errors import ForbiddenError


@dataclass(frozen=True, slots=True)
class Principal:
    """The originator of a call.

    Attributes:
        id: For the audit: `key:` and an API key's id, or the name of a command or job.
        permissions: What it may do.
        collections: Ids of the collections it may reach; None for all.
        request_id: Of the HTTP request.
        key: The API key; None for commands and jobs.
    """

    id: str
    permissions: frozenset[Permission]
    collections: frozenset[UUID] | None = None
    request_id: str | None = None
    key: ApiKey | None = None

    @classmethod
    def from_key(cls, key: ApiKey, request_id: str | None = None) -> Self:
        """Build the principal of a request made with an API key."""
        return cls(f"key:{key.id}", key.permissions, key.collections, request_id, key)

    @classmethod
    def from_process(cls, name: str) -> Self:
        """Build the principal of a command or job of this installation, which may do everything."""
        return cls(name, frozenset(Permission))

    def require(self, permission: Permission) -> None:
        """Return if the principal has a permission.

        Raises:
            ForbiddenError: It has not; the detail names the permission.
        """
        if permission in self.permissions:
            return
        has = ", ".join(f"'{one}'" for one in Permission if one in self.permissions) or "none"
        whose = "this key" if self.key else f"'{self.id}'"
        raise ForbiddenError(
            f"This needs a key with the permission '{permission}'; {whose} has {has}.", needed=permission.value
        )

    @property
    def may_see_scores(self) -> bool:
        """Whether answers show cosines, probabilities and margins."""
        return Permission.SCORES in self.permissions

    def can_reach(self, collection_id: UUID) -> bool:
        """Return whether a collection exists for the principal."""
        return self.collections is None or collection_id in self.collections

    def require_all_collections(self, action: str) -> None:
        """Return unless the principal is confined to some collections.

        Raises:
            ForbiddenError: It is.
        """
        if self.collections is not None:
            raise ForbiddenError(f"This key is bound to collections, and may not {action}: use one that is not.")

    def require_no_less_than(self, grant: KeyGrant) -> None:
        """Return if a key with this grant may do nothing that the principal may not.

        Raises:
            ForbiddenError: It may; the detail says what.
        """
        if more := [one for one in Permission if one in grant.permissions - self.permissions]:
            lacking = ", ".join(f"'{one}'" for one in more)
            raise ForbiddenError(
                f"A key may manage only keys that may do no more than itself; this one lacks {lacking}."
            )
        if self.collections is not None and not (
            grant.collections is not None and grant.collections <= self.collections
        ):
            raise ForbiddenError(
                "A key that is bound to collections may manage only keys bound to some of them: name their collections."
            )
        own_limit = self.key.searches_per_hour if self.key else None
        if own_limit is not None and (grant.searches_per_hour is None or grant.searches_per_hour > own_limit):
            raise ForbiddenError(
                f"A key with a limit may manage only keys with none higher: searches_per_hour of at most {own_limit:,}."
            )
        own_end = self.key.expires_at if self.key else None
        if own_end is not None and (grant.expires_at is None or grant.expires_at > own_end):
            raise ForbiddenError(
                f"A key that expires may manage only keys that expire no later: at most {own_end.isoformat()}."
            )
