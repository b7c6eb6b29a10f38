"""A server watches what it has a lease of, no longer than that, and no more sources than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from tests.api.conftest import Api
from tests.api.test_sources import ALLOWED, camera, create, watched
from tests.sources.cameras import Camera, wait_until

from vultus.db.repositories.sources import SourceRepository
from vultus.errors import UnavailableError
from vultus.services.sources import supervision
from vultus.services.sources.supervision import SourceRunner
from vultus.utils.ids import new_id

__all__ = ["camera", "watched"]


async def test_a_server_that_cannot_renew_its_lease_stops_watching_when_it_ends(
    watched: Api, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "LEASE_S", 2.0)
    await create(watched, camera.url("/mjpeg"))
    await watched.services.source_supervisor.run()
    assert len(watched.services.source_supervisor._runners) == 1

    await wait_until(lambda: not watched.services.source_supervisor._runners, 5)
    await watched.services.source_supervisor.run()

    assert len(watched.services.source_supervisor._runners) == 1


async def test_a_renewal_that_takes_too_long_is_given_up(
    watched: Api, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = watched.services.source_supervisor
    await create(watched, camera.url("/mjpeg"))
    await supervisor.run()
    monkeypatch.setattr(supervision, "LEASE_S", 2.0)

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    with monkeypatch.context() as slow:
        slow.setattr(SourceRepository, "claim_sources", hang)
        async with asyncio.timeout(5):
            with pytest.raises(UnavailableError):
                await supervisor.run()

    await supervisor.run()
    assert len(supervisor._runners) == 1


async def test_no_watch_begins_after_its_lease_has_ended(
    watched: Api, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = watched.services.source_supervisor
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    await supervisor.run()
    await watched.client.patch(f"/v1/sources/{source_id}", json={"name": "gate"})
    monkeypatch.setattr(supervision, "LEASE_S", 2.0)
    stop = SourceRunner.stop

    async def stop_slowly(runner: SourceRunner) -> None:
        await stop(runner)
        await asyncio.sleep(2.1)

    with monkeypatch.context() as slow:
        slow.setattr(SourceRunner, "stop", stop_slowly)
        await supervisor.run()
    assert supervisor._runners == {}

    await supervisor.run()
    assert len(supervisor._runners) == 1


async def test_leases_that_end_while_sources_are_stopped_leave_no_watch_behind(
    watched: Api, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = watched.services.source_supervisor
    for _ in range(2):
        await create(watched, camera.url("/mjpeg"))
    await supervisor.run()
    runners = dict(supervisor._runners)

    supervisor._expire()
    await supervisor._stop_runners(list(runners))
    await asyncio.gather(*(one._task for one in runners.values()), return_exceptions=True)

    assert supervisor._runners == {}
    assert all(one._task.done() for one in runners.values())


async def test_a_server_watches_no_more_sources_than_it_may(serve: Callable[..., Any], camera: Camera) -> None:
    api = await serve(**{"sources": ALLOWED["sources"] | {"max_watched": 1}})
    supervisor = api.services.source_supervisor
    for _ in range(2):
        await create(api, camera.url("/mjpeg"))

    for _ in range(3):
        await supervisor.run()
        assert len(supervisor._runners) == 1
    await next(iter(supervisor._runners.values())).stop()  # as if its video were over
    await supervisor.run()
    assert len(supervisor._runners) == 2

    await supervisor.close()


async def test_no_more_sources_are_claimed_than_asked_for_whatever_the_plan(
    serve: Callable[..., Any], camera: Camera
) -> None:
    api = await serve(**ALLOWED)
    for _ in range(3):
        await create(api, camera.url("/mjpeg"))
    async with api.services.database.transaction() as work:
        for join in ("hashjoin", "mergejoin", "material"):  # what a plan of a nested loop would run again and again
            await work._session.execute(text(f"SET LOCAL enable_{join} = off"))
        await work._session.execute(text("SET LOCAL enable_hashagg = off"))
        await work._session.execute(text("SET LOCAL enable_sort = off"))
        claimed = await work.sources.claim_sources(new_id(), 15.0, 1)

    assert len(claimed) == 1
