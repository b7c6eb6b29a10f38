"""Sources over the API: set up, watched by one server of several, lost and back, and never more than is allowed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text
from tests.api.conftest import Api
from tests.callers import CALLER
from tests.clips import ASTRONAUT, Clip, Walker, portrait_of, stand
from tests.faces import encoded
from tests.sources.cameras import Camera

from vultus.db.repositories.sources import SourceRepository
from vultus.domain import Permission, Role
from vultus.domain.sources import SourceProblem, SourceState
from vultus.errors import OverloadedError
from vultus.services.sources.supervision import SourceSupervisor

ALLOWED = {"sources": {"allowed": "127.0.0.1, /srv/videos", "read_timeout_s": 3, "fps": 10, "idle_fps": 10}}


@pytest.fixture
def camera() -> Iterator[Camera]:
    """A camera that shows the astronaut."""
    clip = Clip((Walker(ASTRONAUT, stand(320, 240), 160),), 1)
    made = Camera([encoded(clip.draw(0)), encoded(clip.draw(0.1))], fps=10)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def watched(serve: Callable[..., Any]) -> AsyncIterator[Api]:
    api: Api = await serve(**ALLOWED)
    yield api
    await api.services.source_supervisor.close()


async def create(api: Api, address: str, status: int = 201, **fields: Any) -> Any:
    answer = await api.client.post("/v1/sources", json={"name": "door", "address": address, **fields})
    assert answer.status_code == status, answer.text
    return answer.json()


async def wait_for_state(api: Api, source_id: str, state: str, *supervisors: SourceSupervisor) -> Any:
    """Run the supervisors until a source is in a state, and return it."""
    async with asyncio.timeout(40):
        while True:
            for supervisor in supervisors or (api.services.source_supervisor,):
                await supervisor.run()
            source = (await api.client.get(f"/v1/sources/{source_id}")).json()
            if source["status"]["state"] == state:
                return source
            await asyncio.sleep(0.05)


def fail_changes_of_state(
    monkeypatch: pytest.MonkeyPatch, times: int, error: Exception | None = None
) -> list[Exception]:
    """Let the next changes of a state fail; return the failures that are still to come."""
    failures = [error or OverloadedError("Every database connection is in use; try again.")] * times
    set_state = SourceRepository.set_state

    async def fail_or_set(repository: SourceRepository, *values: Any) -> Any:
        if failures:
            raise failures.pop()
        return await set_state(repository, *values)

    monkeypatch.setattr(SourceRepository, "set_state", fail_or_set)
    return failures


async def list_events(api: Api, *types: str) -> list[dict[str, Any]]:
    items = (await api.client.get("/v1/events", params={"limit": 500})).json()["items"]
    return [one for one in items if one["type"] in types]


async def test_a_loss_and_a_return_are_told_once_each_in_order(watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]

    await wait_for_state(watched, source_id, "running")
    for _ in range(3):
        camera.stop()
        lost = await wait_for_state(watched, source_id, "lost")
        camera.start()
        await wait_for_state(watched, source_id, "running")

    assert lost["status"]["problem"]["code"] in {"closed", "refused"}
    events = await list_events(watched, "source_lost", "source_back")
    assert [one["type"] for one in events] == ["source_lost", "source_back"] * 3
    assert {one["data"]["origin_id"] for one in events} == {source_id}
    assert len({one["id"] for one in events}) == 6


async def test_another_server_takes_over_and_tells_nothing_twice(watched: Api, camera: Camera) -> None:
    services = watched.services
    first = services.source_supervisor
    second = SourceSupervisor(
        services.database,
        services.sources,
        services.streams,
        services.settings.sources,
        services.sightings,
    )
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    await wait_for_state(watched, source_id, "running", first, second)
    assert [len(one._runners) for one in (first, second)] == [1, 0]

    camera.stop()
    await wait_for_state(watched, source_id, "lost", first, second)
    await first._stop_runners(list(first._runners))  # it dies without a word
    async with services.database.transaction() as work:
        await work._session.execute(text("UPDATE sources SET watched_until = now()"))
    camera.start()
    await wait_for_state(watched, source_id, "running", second)

    assert len(second._runners) == 1
    assert [one["type"] for one in await list_events(watched, "source_lost", "source_back")] == [
        "source_lost",
        "source_back",
    ]
    await second.close()


@pytest.mark.parametrize("patch", [{"name": "gate"}, {"enabled": False}])
async def test_a_lost_source_that_is_changed_comes_back(patch: dict[str, Any], watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    await wait_for_state(watched, source_id, "running")
    camera.stop()
    await wait_for_state(watched, source_id, "lost")

    await watched.client.patch(f"/v1/sources/{source_id}", json=patch)
    await watched.services.source_supervisor.run()
    await watched.client.patch(f"/v1/sources/{source_id}", json={"enabled": True})
    camera.start()
    await wait_for_state(watched, source_id, "running")

    assert [one["type"] for one in await list_events(watched, "source_lost", "source_back")] == [
        "source_lost",
        "source_back",
    ]


async def test_a_lost_source_that_its_key_stopped_comes_back_when_another_sets_it_up(
    watched: Api, camera: Camera
) -> None:
    key, secret = await watched.services.access.create_key(CALLER, "cameras", Role.ADMIN)
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"name": "door", "address": camera.url("/mjpeg")}
    source_id = (await watched.client.post("/v1/sources", json=body, headers=headers)).json()["id"]
    await wait_for_state(watched, source_id, "running")
    camera.stop()
    await wait_for_state(watched, source_id, "lost")
    await watched.services.access.revoke_key(CALLER, key.id)
    await wait_for_state(watched, source_id, "stopped")

    await watched.client.patch(f"/v1/sources/{source_id}", json={"name": "gate"})
    camera.start()
    await wait_for_state(watched, source_id, "running")

    assert [one["type"] for one in await list_events(watched, "source_lost", "source_back")] == [
        "source_lost",
        "source_back",
    ]


async def test_what_a_server_saw_before_a_change_is_not_told_as_a_loss(watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    await wait_for_state(watched, source_id, "running")
    (runner,) = watched.services.source_supervisor._runners.values()

    await watched.client.patch(f"/v1/sources/{source_id}", json={"name": "gate"})
    for state in (SourceState.RUNNING, SourceState.LOST):
        await runner._set_state(state, SourceProblem.CLOSED)

    source = (await watched.client.get(f"/v1/sources/{source_id}")).json()
    assert source["status"]["state"] == "connecting"
    assert await list_events(watched, "source_lost") == []


async def test_a_camera_stays_connected_while_the_database_is_busy(
    watched: Api, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = fail_changes_of_state(monkeypatch, 2)
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]

    await wait_for_state(watched, source_id, "running")

    assert failures == []
    assert camera.requests == ["/mjpeg"]


async def test_a_source_is_not_opened_before_its_state_is_written(
    watched: Api, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    async with watched.services.database.transaction() as work:
        await work._session.execute(text("UPDATE sources SET state = 'stopped'"))
    fail_changes_of_state(monkeypatch, 1, RuntimeError("defect"))

    await wait_for_state(watched, source_id, "running")

    assert [len(one.feeds) for one in watched.services.sources.pool._processes] == [1]


async def test_an_address_is_stored_sealed_and_shown_without_its_secrets(watched: Api, camera: Camera) -> None:
    camera.password = "admin:geheim"
    url = camera.url("/mjpeg", "admin:geheim@")
    created = await create(watched, url)
    query = await create(watched, f"http://127.0.0.1:{camera.port}/user=admin&password=geheim?token=geheim")
    await watched.client.patch(f"/v1/sources/{query['id']}", json={"enabled": False})

    source = await wait_for_state(watched, created["id"], "running")

    assert source["address"] == camera.url("/mjpeg")
    assert query["address"] == f"http://127.0.0.1:{camera.port}/user=…&password=…?…"
    assert "geheim" not in (await watched.client.get("/v1/sources")).text
    async with watched.services.database.transaction(read_only=True) as work:
        rows = (await work._session.execute(text("SELECT sources::text, sealed_address FROM sources"))).all()
    assert all("geheim" not in row[0] and b"geheim" not in row[1] for row in rows)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("http://10.0.0.5/mjpeg", 403),
        ("rtsp://camera.example.org/live", 201),  # a name is resolved when it is opened
        ("/srv/videos/door.mp4", 201),
        ("/srv/videos/../other/door.mp4", 422),
        ("/etc/passwd", 403),
        ("/dev/video0", 403),
        ("file:///srv/videos/door.mp4", 422),
        ("concat:/srv/videos/a.mp4|/etc/passwd", 422),
        ("http:///mjpeg", 422),
        ("http://127.0.0.1:99999/", 422),
        ("http://[::1/", 422),
    ],
)
async def test_only_what_the_operator_allows_is_a_source(address: str, status: int, watched: Api) -> None:
    answer = await create(watched, address, status)

    if status != 201:
        assert "10.0.0.5" not in str(answer)
        assert answer["code"] == ("address_not_allowed" if status == 403 else "invalid_input")


@pytest.mark.parametrize("zone", [[[0.1, 0.1]] * 3, [[0, 0], [0.5, 0.5], [1, 1], [0.2, 0.2]]])
async def test_a_zone_without_an_area_is_refused(zone: list[list[float]], watched: Api, camera: Camera) -> None:
    square = [[0, 0], [1, 0], [1, 1], [0, 1]]
    refused = await create(watched, camera.url("/mjpeg"), 422, zones=[square, zone])
    source_id = (await create(watched, camera.url("/mjpeg"), zones=[square]))["id"]
    patched = await watched.client.patch(f"/v1/sources/{source_id}", json={"zones": [zone]})

    assert "zone 2" in refused["detail"]
    assert patched.status_code == 422
    assert (await watched.client.get(f"/v1/sources/{source_id}")).json()["zones"] == [square]


async def test_a_source_is_changed_switched_off_and_deleted(watched: Api, camera: Camera) -> None:
    zones = [[[0, 0], [1, 0], [1, 1], [0, 1]]]
    source_id = (await create(watched, camera.url("/mjpeg"), zones=zones, min_face_px=50))["id"]
    await wait_for_state(watched, source_id, "running")

    changed = await watched.client.patch(f"/v1/sources/{source_id}", json={"fps": 3, "zones": None, "name": " back "})
    assert (changed.json()["fps"], changed.json()["zones"], changed.json()["name"]) == (3, [], "back")
    await wait_for_state(watched, source_id, "running")
    await watched.client.patch(f"/v1/sources/{source_id}", json={"enabled": False})
    await wait_for_state(watched, source_id, "stopped")
    assert watched.services.source_supervisor._runners == {}
    assert (await watched.client.delete(f"/v1/sources/{source_id}")).status_code == 204

    assert (await watched.client.get(f"/v1/sources/{source_id}")).status_code == 404
    assert await list_events(watched, "source_lost", "source_back") == []
    actions = [one["type"] for one in await list_events(watched, "source.created", "source.changed", "source.deleted")]
    assert actions == ["source.created", "source.changed", "source.changed", "source.deleted"]


async def test_a_revoked_key_ends_its_sources(watched: Api, camera: Camera) -> None:
    key, secret = await watched.services.access.create_key(CALLER, "cameras", Role.ADMIN)
    answer = await watched.client.post(
        "/v1/sources",
        json={"name": "door", "address": camera.url("/mjpeg")},
        headers={"Authorization": f"Bearer {secret}"},
    )
    source_id = answer.json()["id"]
    await wait_for_state(watched, source_id, "running")

    await watched.services.access.revoke_key(CALLER, key.id)

    stopped = await wait_for_state(watched, source_id, "stopped")
    assert stopped["status"]["problem"]["code"] == "key_revoked"


async def test_a_key_bound_to_another_collection_sees_no_source(watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    await watched.client.post("/v1/collections", json={"name": "other", "policy": {}})
    permissions = {Permission.READ, Permission.CONFIGURE, Permission.LIVE}
    _, secret = await watched.services.access.create_key(CALLER, "bound", permissions, collections=["other"])
    headers = {"Authorization": f"Bearer {secret}"}

    assert (await watched.client.get("/v1/sources", headers=headers)).json()["items"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/snapshot")):
        answer = await watched.client.request(method, f"/v1/sources/{source_id}{path}", headers=headers)
        assert answer.status_code == 404
    patched = await watched.client.patch(f"/v1/sources/{source_id}", json={"fps": 1}, headers=headers)
    assert patched.status_code == 404


async def test_a_snapshot_needs_the_permission_live_and_says_why_there_is_none(watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    path = f"/v1/sources/{source_id}/snapshot"

    answer = await watched.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (640, 480)
    assert (await watched.client.get(path, headers=await watched.key(Role.RECOGNIZE))).status_code == 403
    camera.stop()
    refused = await watched.client.get(path)
    assert (refused.status_code, refused.json()["problem"]) == (503, "refused")


async def test_a_source_that_is_switched_off_shows_nothing_from_that_moment(watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    path = f"/v1/sources/{source_id}/snapshot"
    running = await wait_for_state(watched, source_id, "running")
    assert (await watched.client.get(path)).status_code == 200

    changed = (await watched.client.patch(f"/v1/sources/{source_id}", json={"enabled": False})).json()
    refused = await watched.client.get(path)
    renamed = (await watched.client.patch(f"/v1/sources/{source_id}", json={"name": "back door"})).json()

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert changed["status"]["state"] == "stopped"
    assert changed["status"]["since"] > running["status"]["since"]
    assert renamed["status"]["since"] == changed["status"]["since"]


async def test_a_source_that_was_lost_does_not_show_its_last_frame(watched: Api, camera: Camera) -> None:
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]
    await wait_for_state(watched, source_id, "running")
    camera.stop()
    await wait_for_state(watched, source_id, "lost")

    assert (await watched.client.get(f"/v1/sources/{source_id}/snapshot")).status_code == 503


async def test_a_source_recognises_who_stands_before_it(watched: Api, camera: Camera) -> None:
    ada = (await watched.register(portrait_of(ASTRONAUT), name="Ada"))["person"]["id"]
    source_id = (await create(watched, camera.url("/mjpeg")))["id"]

    await wait_for_state(watched, source_id, "running")
    async with asyncio.timeout(30):
        while not (seen := await list_events(watched, "recognised")):  # noqa: ASYNC110  of another task
            await asyncio.sleep(0.1)

    assert (seen[0]["data"]["person_id"], seen[0]["data"]["origin_id"]) == (ada, source_id)
