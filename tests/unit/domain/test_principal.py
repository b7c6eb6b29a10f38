"""Who may do what."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from vultus.domain import ApiKey, Permission, Principal, Role
from vultus.domain.principal import PERMISSIONS
from vultus.errors import ForbiddenError


def key(role: Role) -> ApiKey:
    return ApiKey(uuid4(), "gate", role, datetime.now(UTC), None)


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("role", Role)
def test_a_role_has_the_permissions_of_the_roles_it_includes(role: Role, permission: Permission) -> None:
    principal = Principal.from_key(key(role))

    is_allowed = list(Role).index(role) >= list(Role).index(permission.least_role)

    assert (permission in PERMISSIONS[role]) is is_allowed
    if is_allowed:
        principal.require(permission)
        return
    with pytest.raises(ForbiddenError) as refused:
        principal.require(permission)
    assert refused.value.detail == f"This needs a key with role '{permission.least_role}'; this key has '{role}'."
    assert refused.value.facts["needed"] == permission.least_role


def test_a_process_may_do_everything_everywhere() -> None:
    job = Principal.from_process("sweep")

    for permission in Permission:
        job.require(permission)
    assert job.can_reach(uuid4())


def test_what_a_job_lacks_is_named() -> None:
    job = Principal("reader", frozenset({Permission.READ}))

    with pytest.raises(ForbiddenError, match="'reader' has it not"):
        job.require(Permission.ERASE)


def test_only_the_named_collections_exist_for_a_bound_principal() -> None:
    own = uuid4()

    bound = Principal("key:1", frozenset(Permission), collections=frozenset({own}))

    assert bound.can_reach(own)
    assert not bound.can_reach(uuid4())
