"""When a consent ends: the earliest of what was agreed, of its age, and of the time without being seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import Collection
from vultus.errors import InvalidInputError
from vultus.services.people.consents import ConsentGrant, compute_consent_period

DAY = timedelta(days=1)
POLICY: Any = None
days = st.none() | st.integers(1, 36_500)


@given(retention=days, unseen=days, ends_in=st.none() | st.integers(-5, 50_000), given_ago=st.integers(0, 20_000))
def test_the_end_is_the_earliest_of_all(
    retention: int | None, unseen: int | None, ends_in: int | None, given_ago: int
) -> None:
    now = datetime.now(UTC)
    collection = Collection(uuid4(), "home", "space", POLICY, retention, now, now, unseen_days=unseen)
    granted_at = now - given_ago * DAY
    own = [now + ends_in * DAY] if ends_in is not None else []
    own += [granted_at + retention * DAY] if retention is not None else []
    grant = ConsentGrant("Tests", "tests", granted_at=granted_at, expires_at=own[0] if ends_in is not None else None)

    try:
        period = compute_consent_period(collection, grant)
    except InvalidInputError:
        assert min(own) <= datetime.now(UTC)
        return

    assert period.granted_until == min(own, default=None)
    assert (period.seen_at is None) == (unseen is None)
    ends = [*own, *([period.seen_at + (unseen + 1) * DAY] if period.seen_at and unseen else [])]
    assert period.expires_at == min(ends, default=None)
    assert period.expires_at is None or period.expires_at > now
