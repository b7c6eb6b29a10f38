"""The scope of a request, without HTTP: its id, stages and principal, and the limits all requests share."""

from __future__ import annotations

import asyncio

import pytest
from tests.callers import CALLER

from vultus.errors import OverloadedError
from vultus.utils import timing
from vultus.utils.request_scope import RequestLimits, RequestScope, find_scope, get_request_id, get_scope


def build_limits(*, max_requests: int = 9, max_bodies_bytes: int = 100) -> RequestLimits:
    return RequestLimits(max_requests=max_requests, max_bodies_bytes=max_bodies_bytes)


def test_outside_of_a_request_there_is_no_scope() -> None:
    assert (find_scope(), get_request_id()) == (None, "-")
    with pytest.raises(RuntimeError, match="no request"):
        get_scope()
    with timing.measure_stage("search"):
        pass  # nobody collects it


@pytest.mark.parametrize(
    ("incoming", "is_kept"), [("abc-1.2:3_4", True), ("", False), ("two words", False), ("x" * 129, False)]
)
def test_an_incoming_id_is_kept_if_it_is_a_word(incoming: str, is_kept: bool) -> None:
    with RequestScope(build_limits(), incoming) as scope:
        assert (scope.request_id == incoming) is is_kept
        assert len(scope.request_id) == (len(incoming) if is_kept else 32)
        assert get_request_id() == scope.request_id
        assert get_scope() is scope
    assert find_scope() is None


def test_stages_are_added_up_and_reported_with_the_total() -> None:
    with RequestScope(build_limits()) as scope:
        assert scope.format_server_timing() is None
        timing.record_stages({"decode": 2.0, "detect": 10.0})
        timing.record_stages({"decode": 1.5})

        header = scope.format_server_timing()

    assert scope.stages == {"decode": 3.5, "detect": 10.0}
    assert header is not None
    assert header.startswith("decode;dur=3.5, detect;dur=10.0, total;dur=")


async def test_tasks_of_a_request_share_its_scope_and_requests_do_not() -> None:
    limits = build_limits()

    async def record(ms: float) -> None:
        timing.record_stages({"search": ms})

    async def handle(ms: float) -> dict[str, float]:
        with RequestScope(limits) as scope:
            await asyncio.gather(record(ms), record(ms))
            return scope.stages

    assert tuple(await asyncio.gather(handle(1), handle(10))) == ({"search": 2.0}, {"search": 20.0})


def test_a_scope_without_authentication_has_no_principal() -> None:
    with RequestScope(build_limits()) as scope:
        with pytest.raises(RuntimeError, match="not authenticated"):
            _ = scope.principal
        scope.principal = CALLER

        assert get_scope().principal is CALLER


def test_requests_beyond_the_limit_are_not_admitted_until_others_end() -> None:
    limits = build_limits(max_requests=1)

    with RequestScope(limits) as first:
        first.ensure_admitted()
        with RequestScope(limits) as second, pytest.raises(OverloadedError, match="1 requests"):
            second.ensure_admitted()
        first.ensure_admitted()
    with RequestScope(limits) as third:
        third.ensure_admitted()


def test_all_bodies_share_one_budget_and_return_it() -> None:
    limits = build_limits(max_bodies_bytes=100)

    with RequestScope(limits) as first, RequestScope(limits) as second:
        first.hold_bytes(60)
        with pytest.raises(OverloadedError):
            second.hold_bytes(50)
        second.release_bytes()
        second.hold_bytes(40)
        first.release_bytes()
        first.release_bytes()
        second.hold_bytes(60)

    assert limits.held_bytes == 0


def test_a_scope_that_fails_returns_what_it_held() -> None:
    limits = build_limits(max_requests=1)

    with pytest.raises(KeyError), RequestScope(limits) as scope:
        scope.hold_bytes(99)
        raise KeyError

    assert (limits.held_bytes, limits.in_flight, find_scope()) == (0, 0, None)
