"""How much the server does: counts, for those who look after all of it."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from tests.callers import CALLER

from vultus.domain import Permission, Principal
from vultus.errors import ForbiddenError
from vultus.services.load import LoadService
from vultus.utils import metrics


def test_requests_are_counted_and_timed_but_not_those_of_watchers() -> None:
    service = LoadService()
    before = service.read_load(CALLER)
    for route in ("/v1/recognize", "/v1/keys", "/v1/load", "/v1/health/ready"):
        metrics.get_labelled(metrics.REQUESTS, route, "GET", "200").inc()
        metrics.get_labelled(metrics.REQUEST_SECONDS, route, "GET").observe(0.2)
    metrics.BATCH_PHOTOS.observe(4)
    metrics.get_labelled(metrics.SEARCHES, "sql").inc(3)
    now = service.read_load(CALLER)

    assert (now.process_id, now.started_at) == (before.process_id, before.started_at)
    assert (now.requests - before.requests, now.photos - before.photos, now.searches - before.searches) == (2, 4, 3)
    grown = {bound: number - before.answers_within.get(bound, 0) for bound, number in now.answers_within.items()}
    assert (grown["0.1"], grown["0.25"], grown["+Inf"]) == (0, 1, 1)


@pytest.mark.parametrize(
    "caller",
    [
        replace(CALLER, permissions=frozenset(Permission) - {Permission.CONFIGURE}),
        replace(CALLER, collections=frozenset({uuid4()})),
    ],
    ids=["without the permission", "bound to a collection"],
)
def test_it_is_hidden_from_those_who_may_not_see_every_collection(caller: Principal) -> None:
    with pytest.raises(ForbiddenError):
        LoadService().read_load(caller)
