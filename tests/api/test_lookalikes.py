"""A face that looks like another person's is refused, whatever happens between search and lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.api.test_registration import persons
from tests.callers import CALLER
from tests.faces import STRANGER, drawn, encoded, portrait

from vultus.domain import Permission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.api.conftest import Api


async def test_a_face_enrolled_as_another_person_is_refused_and_names_the_person(api: Api) -> None:
    ada = await api.register(portrait(), name="Ada")

    refused = await api.register(portrait(mirror=True), name="Eve", status=422)

    (photo,) = refused["rejected"]
    assert photo["reasons"] == ["enrolled_as_other_person"]
    assert photo["person_id"] == ada["person"]["id"]
    assert "Ada" not in str(refused)  # a stored response must not outlive the erasure of a person it names
    assert photo["similarity"] > photo["threshold"]


async def test_twins_are_enrolled_when_a_human_has_checked(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    await api.register(portrait(mirror=True), name="Eve", allow_lookalike="true")

    (face,) = (await api.recognize(portrait(angle=3), limit="5"))["faces"]

    assert (face["verdict"], face["person"]) == ("ambiguous", None)
    assert {one["name"] for one in face["candidates"]} == {"Ada", "Eve"}


async def test_the_same_face_sent_twice_concurrently_is_enrolled_once(api: Api) -> None:
    async def register(name: str, photo: bytes) -> int:
        files = {"photo": photo}
        data = {"name": name, "consent_purpose": "x", "consent_recorded_by": "y"}
        return (await api.client.post("/v1/register", data=data, files=files)).status_code

    statuses = await asyncio.gather(register("Ada", portrait()), register("Eve", portrait(mirror=True)))

    assert sorted(statuses) == [201, 422]
    assert len(await persons(api)) == 1


def run_after_search(api: Api, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[Any]]) -> list[int]:
    """Run an action once, after the next search and before the caller gets its results; return the probes searched."""
    search, probes = api.services.searcher.search, list[int]()

    async def search_then_act(*values: Any) -> Any:
        found = await search(*values)
        probes.append(len(found))
        if len(probes) == 1:
            await act()
        return found

    monkeypatch.setattr(api.services.searcher, "search", search_then_act)
    return probes


async def test_lookalikes_are_searched_for_before_the_collection_is_locked(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = asyncio.Event()

    async def note() -> None:
        searched.set()

    probes = run_after_search(api, monkeypatch, note)
    async with api.services.database.transaction() as work:
        await work.open("default", CALLER, Permission.ENROL)
        registration = asyncio.create_task(api.register(portrait(), name="Ada"))
        async with asyncio.timeout(20):
            await searched.wait()
        assert not registration.done()

    assert (await registration)["created"] is True
    assert probes == [1], "nothing was searched under the lock"


async def test_a_lookalike_enrolled_between_search_and_lock_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = []

    async def register_first() -> None:
        first.append(await api.register(portrait(mirror=True), name="Ada"))

    run_after_search(api, monkeypatch, register_first)

    refused = await api.register(portrait(), encoded(drawn(STRANGER)), name="Eve")

    (photo,) = refused["rejected"]
    assert (photo["photo"], photo["reasons"]) == (0, ["enrolled_as_other_person"])
    assert photo["person_id"] == first[0]["person"]["id"]


async def test_a_lookalike_erased_between_search_and_lock_is_not_named(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = (await api.register(portrait(), name="Ada"))["person"]
    run_after_search(api, monkeypatch, lambda: api.client.delete(f"/v1/collections/default/persons/{ada['id']}"))

    assert (await api.register(portrait(mirror=True), name="Eve"))["rejected"] == []


async def test_a_policy_changed_between_search_and_lock_decides_who_is_a_lookalike(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.register(portrait(), name="Ada")
    policy = {"policy": {"threshold": 0.9999}}
    probes = run_after_search(api, monkeypatch, lambda: api.client.patch("/v1/collections/default", json=policy))

    assert (await api.register(portrait(mirror=True), name="Eve"))["rejected"] == []
    assert probes == [1, 1], "searched again"


async def test_a_search_that_is_repeated_holds_neither_the_lock_nor_a_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.register(portrait(), name="Ada")
    connections = api.services.database._hot_connections
    policy, held = {"policy": {"threshold": 0.9999}}, []
    run_after_search(api, monkeypatch, lambda: api.client.patch("/v1/collections/default", json=policy))
    search_then_act = api.services.searcher.search

    async def search_and_note(*values: Any) -> Any:
        held.append(connections.count_used())
        return await search_then_act(*values)

    monkeypatch.setattr(api.services.searcher, "search", search_and_note)

    assert (await api.register(portrait(mirror=True), name="Eve"))["rejected"] == []
    assert held == [0, 0]


async def test_a_collection_renamed_between_search_and_lock_is_not_searched_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = run_after_search(
        api, monkeypatch, lambda: api.client.patch("/v1/collections/default", json={"name": "renamed"})
    )

    assert (await api.register(portrait(), name="Ada"))["created"] is True
    assert probes == [1]


async def test_a_lookalikes_face_deleted_between_search_and_lock_refuses_nobody(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the person has another face, which does not look like it."""
    ada = await api.register(portrait(), encoded(drawn(STRANGER)), name="Ada")
    face = ada["accepted"][0]["face"]["id"]
    path = f"/v1/collections/default/persons/{ada['person']['id']}/faces/{face}"
    probes = run_after_search(api, monkeypatch, lambda: api.client.delete(path))

    assert (await api.register(portrait(mirror=True), name="Eve"))["rejected"] == []
    assert probes == [1, 1]
