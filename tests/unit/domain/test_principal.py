"""Who may do what."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from vultus.domain import ApiKey, KeyGrant, Permission, Principal, Role
from vultus.errors import ForbiddenError

ONE, OTHER = uuid4(), uuid4()
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def key(role: Role) -> ApiKey:
    return ApiKey(id=uuid4(), name="gate", role=role, permissions=role.permissions, created_at=NOW)


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        (Role.RECOGNIZE, {"recognize"}),
        (Role.ENROL, {"recognize", "read", "enrol"}),
        (Role.MANAGE, {"recognize", "read", "enrol", "erase", "scores", "search", "live"}),
        (Role.ADMIN, set(Permission)),
    ],
)
def test_a_role_is_a_named_set_of_permissions(role: Role, permissions: set[str]) -> None:
    principal = Principal.from_key(key(role))

    assert role.permissions == permissions
    for permission in Permission:
        if permission in permissions:
            principal.require(permission)
            continue
        with pytest.raises(
            ForbiddenError, match=rf"the permission '{permission}'; this key has 'recognize'"
        ) as refused:
            principal.require(permission)
        assert refused.value.facts["needed"] == permission


def test_a_process_may_do_everything_everywhere() -> None:
    job = Principal.from_process("sweep")

    for permission in Permission:
        job.require(permission)
    assert job.can_reach(uuid4())
    job.require_all_collections("fly")


def test_what_a_job_lacks_is_named() -> None:
    job = Principal("reader", frozenset({Permission.READ}))

    with pytest.raises(ForbiddenError, match="'reader' has 'read'"):
        job.require(Permission.ERASE)


def test_only_the_named_collections_exist_for_a_bound_principal() -> None:
    bound = Principal("key:1", frozenset(Permission), collections=frozenset({ONE}))

    assert bound.can_reach(ONE)
    assert not bound.can_reach(OTHER)


MANAGER = replace(
    key(Role.ENROL),
    permissions=frozenset({Permission.KEYS, Permission.READ}),
    collections=frozenset({ONE}),
    expires_at=NOW,
)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"permissions": frozenset({Permission.READ, Permission.ERASE})}, "lacks 'erase'"),
        ({"collections": None}, "name their collections"),
        ({"collections": frozenset({ONE, OTHER})}, "name their collections"),
        ({"expires_at": None}, "at most 2026-01-02"),
        ({"expires_at": NOW + timedelta(seconds=1)}, "at most 2026-01-02"),
    ],
)
def test_nobody_manages_a_key_that_may_do_more(more: dict[str, Any], what: str) -> None:
    principal = Principal.from_key(MANAGER)
    equal = KeyGrant(
        name="door", permissions=MANAGER.permissions, collections=MANAGER.collections, expires_at=MANAGER.expires_at
    )
    principal.require_no_less_than(equal)

    with pytest.raises(ForbiddenError, match=what):
        principal.require_no_less_than(replace(equal, **more))
