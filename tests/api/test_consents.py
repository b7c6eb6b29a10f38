"""Consents: what rests on one ends with it, however it ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.api.test_people import CONSENT, PEOPLE, actions, verdict
from tests.faces import STRANGER, drawn, encoded, portrait

if TYPE_CHECKING:
    from tests.api.conftest import Api


async def test_withdrawing_the_last_consent_erases_the_person(api: Api) -> None:
    done = await api.register(portrait(), name="Ada")
    person, consent = done["person"]["id"], done["consent"]["id"]

    erased = (await api.client.delete(f"{PEOPLE}/{person}/consents/{consent}")).json()

    assert (erased["person_erased"], erased["faces"]) == (True, 1)
    assert await verdict(api, portrait()) == "no_match"
    assert (await api.client.get(f"{PEOPLE}/{person}")).status_code == 404


async def test_withdrawing_one_of_two_consents_erases_only_its_faces(api: Api) -> None:
    first = await api.register(portrait(), external_id="E-1")
    second = await api.register(portrait(mirror=True), external_id="E-1")
    person = first["person"]["id"]

    erased = (await api.client.delete(f"{PEOPLE}/{person}/consents/{first['consent']['id']}")).json()
    faces = (await api.client.get(f"{PEOPLE}/{person}/faces")).json()["items"]
    consents = (await api.client.get(f"{PEOPLE}/{person}/consents")).json()["items"]

    assert (erased["person_erased"], erased["faces"]) == (False, 1)
    assert [face["consent_id"] for face in faces] == [second["consent"]["id"]]
    assert [one["withdrawn_at"] is not None for one in consents] == [True, False]


async def expire(api: Api, done: Any) -> None:
    """Move a consent's end into the past."""
    async with api.services.database.transaction() as work:
        await work.consents.update_consent(
            UUID(done["collection_id"]),
            UUID(done["consent"]["id"]),
            expires_at=datetime.now(UTC) - timedelta(seconds=1),
        )


async def test_an_expired_consent_ends_recognition_immediately_and_the_sweep_erases(api: Api) -> None:
    done = await api.register(portrait(), name="Ada")
    person = done["person"]["id"]
    assert await verdict(api, portrait()) == "match"

    await expire(api, done)

    assert await verdict(api, portrait()) == "no_match"
    assert sum(await asyncio.gather(*(api.services.eraser.sweep_expired() for _ in range(2)))) == 1
    assert (await api.client.get(f"{PEOPLE}/{person}")).status_code == 404
    assert await actions(api, person_id=person) == ["person.registered", "consent.expired", "person.erased"]


async def test_extending_a_consent_extends_its_faces(api: Api) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    done = await api.register(portrait(), name="Ada", consent_expires_at=soon)
    consent = f"{PEOPLE}/{done['person']['id']}/consents/{done['consent']['id']}"

    changed = await api.client.patch(consent, json={"expires_at": None})

    assert (changed.status_code, changed.json()["expires_at"]) == (200, None)
    assert await verdict(api, portrait()) == "match"


async def test_a_further_consent_is_recorded_and_faces_added_under_it(api: Api) -> None:
    person = (await api.client.post(PEOPLE, json={"name": "Ada", "consent": CONSENT})).json()["id"]
    consent = (await api.client.post(f"{PEOPLE}/{person}/consents", json=CONSENT)).json()

    added = await api.client.post(
        f"{PEOPLE}/{person}/faces", data={"consent_id": consent["id"]}, files={"photo": portrait()}
    )

    assert added.status_code == 201
    assert added.json()["accepted"][0]["face"]["consent_id"] == consent["id"]
    assert (await api.client.get(f"{PEOPLE}/{person}/consents/{consent['id']}")).json() == consent


async def test_a_consent_of_another_person_is_not_accepted(api: Api) -> None:
    ada = await api.register(portrait(), external_id="A")
    await api.register(encoded(drawn(STRANGER)), external_id="B")

    refused = await api.register(
        portrait(mirror=True),
        external_id="B",
        consent_id=ada["consent"]["id"],
        consent_purpose=None,
        consent_recorded_by=None,
        status=404,
    )

    assert refused["code"] == "not_found"


async def test_consents_withdrawn_concurrently_erase_the_person(api: Api) -> None:
    first = await api.register(portrait(), external_id="E-1")
    second = await api.register(portrait(mirror=True), external_id="E-1")
    person = first["person"]["id"]

    ended = await asyncio.gather(
        *(api.client.delete(f"{PEOPLE}/{person}/consents/{done['consent']['id']}") for done in (first, second))
    )

    assert sorted(answer.json()["person_erased"] for answer in ended) == [False, True]
    assert (await api.client.get(f"{PEOPLE}/{person}")).status_code == 404


async def test_a_consent_recorded_while_the_last_is_withdrawn_is_refused_or_keeps_the_person(api: Api) -> None:
    done = await api.register(portrait(), external_id="E-1")
    person = f"{PEOPLE}/{done['person']['id']}"

    withdrawn, recorded = await asyncio.gather(
        api.client.delete(f"{person}/consents/{done['consent']['id']}"),
        api.client.post(f"{person}/consents", json=CONSENT),
    )

    kept = (await api.client.get(person)).status_code == 200
    assert withdrawn.status_code == 200
    assert kept == (recorded.status_code == 201)
    assert withdrawn.json()["person_erased"] is not kept


async def test_a_retention_shortens_the_consents_from_before_it(api: Api) -> None:
    granted = datetime.now(UTC) - timedelta(days=10)
    ada = await api.register(portrait(), name="Ada", consent_granted_at=granted.isoformat())
    bob = await api.register(
        encoded(drawn(STRANGER)), name="Bob", consent_expires_at=(granted + timedelta(days=11)).isoformat()
    )

    async def change(days: int | None, **query: str) -> Any:
        return await api.client.patch("/v1/collections/default", json={"retention_days": days}, params=query)

    async def read_end(person: Any) -> datetime:
        (consent,) = (await api.client.get(f"{PEOPLE}/{person['person']['id']}/consents")).json()["items"]
        return datetime.fromisoformat(consent["expires_at"])

    shortened, bob_end = await change(30), await read_end(bob)
    refused = await change(9)
    assert (shortened.status_code, await read_end(ada)) == (200, granted + timedelta(days=30))
    assert bob_end == granted + timedelta(days=11)
    assert (refused.status_code, refused.json()["code"], refused.json()["consents"]) == (409, "conflict", 1)
    assert (await api.client.get("/v1/collections/default")).json()["retention_days"] == 30
    assert await verdict(api, portrait(angle=3)) == "match"

    ended = await change(9, end_older="true")

    assert ended.status_code == 200
    assert await verdict(api, portrait(angle=3)) == "no_match"
    assert await api.services.eraser.sweep_expired() == 1
    record = (await api.client.get("/v1/audit")).json()["items"]
    changes = [one["detail"] for one in record if one["action"] == "collection.changed"]
    assert changes == [
        {
            "fields": ["retention_days"],
            "changes": {"retention_days": {"from": before, "to": now}},
            "consents_shortened": 1,
        }
        for before, now in ((None, 30), (30, 9))
    ]


async def test_an_expired_consent_cannot_be_revived(api: Api) -> None:
    done = await api.register(portrait(), name="Ada")
    await expire(api, done)

    revived = await api.client.patch(
        f"{PEOPLE}/{done['person']['id']}/consents/{done['consent']['id']}", json={"expires_at": None}
    )

    assert (revived.status_code, revived.json()["code"]) == (422, "invalid_input")
