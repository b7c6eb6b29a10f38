"""Decision records over HTTP: why a photo was answered as it was, for who may read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from tests.api.conftest import CONSENT, Api
from tests.api.test_doors import make_key
from tests.faces import portrait

from vultus.domain import Permission

NO_CONSENT: dict[str, Any] = dict.fromkeys(CONSENT)
RULES = {"policy": {"record_searches": "all", "threshold": 0.9}}


async def test_a_recognition_is_explained_by_its_request(api: Api) -> None:
    changed = (await api.client.patch("/v1/collections/default", json=RULES)).json()
    made = await api.register(portrait(), name="Ada")
    headers = {"X-Request-ID": "door-1"}
    answered = await api.client.post("/v1/recognize", files={"photo": portrait()}, headers=headers)
    verified = await api.client.post(
        "/v1/verify", files={"photo": portrait()}, data={"person_id": made["person"]["id"]}
    )
    assert (answered.status_code, verified.status_code) == (200, 200)

    (one,) = (await api.client.get("/v1/decisions", params={"request_id": "door-1"})).json()["items"]
    listed = (await api.client.get("/v1/decisions", params={"person_id": made["person"]["id"]})).json()["items"]
    explained = (await api.client.get(f"/v1/decisions/{one['id']}")).json()
    blind = await make_key(api, {Permission.AUDIT})
    hidden = (await api.client.get(f"/v1/decisions/{one['id']}", headers=blind)).json()
    elsewhere = (await api.client.post("/v1/collections", json={"name": "other"})).json()["id"]
    bound = await make_key(api, {Permission.AUDIT}, elsewhere)
    refused = await api.client.get(f"/v1/decisions/{one['id']}", headers=bound)

    face = answered.json()["faces"][0]
    assert [record["kind"] for record in listed] == ["recognize", "verify"]
    assert (one["verdict"], one["person_id"]) == ("match", made["person"]["id"])
    for name in ("verdict", "threshold", "false_match_rate", "gallery_size", "band", "reasons"):
        assert one[name] == face[name]
    assert explained["similarity"] > 0.9
    assert explained["consent"]["purpose"] == "Tests"
    assert explained["rules"]["action"] == "collection.changed"
    assert explained["rules_since"] == explained["rules"]["at"] == changed["updated_at"]
    assert explained["key_name"] == "administrator"
    assert (hidden["similarity"], hidden["consent"], hidden["band"]) == (None, None, "clear")
    assert refused.status_code == 404
    assert (await api.client.get("/v1/decisions", headers=bound)).json()["items"] == []


async def test_who_is_recognised_or_enrolled_again_is_seen(api: Api) -> None:
    await api.client.patch("/v1/collections/default", json={"unseen_days": 30, "policy": {"threshold": 0.9}})
    made = await api.register(portrait(), name="Ada")
    consents = f"/v1/collections/default/persons/{made['person']['id']}/consents"
    days = [await see_consent(api, consents)]

    for act in (
        api.recognize(portrait()),
        api.register(portrait(angle=3), person_id=made["person"]["id"], consent_id=made["consent"]["id"], **NO_CONSENT),
    ):
        async with api.services.database.transaction() as work:
            await work._session.execute(text("UPDATE consents SET seen_at = seen_at - interval '2 days'"))
        await act
        await api.services.last_seen.write_waiting()
        days.append(await see_consent(api, consents))

    assert days == [31, 31, 31]


async def see_consent(api: Api, path: str) -> int:
    """Return in how many days the only consent ends, if its person was seen just now."""
    (consent,) = (await api.client.get(path)).json()["items"]
    now = datetime.now(UTC)
    assert now - datetime.fromisoformat(consent["seen_at"]) < timedelta(minutes=5)
    assert consent["granted_until"] is None
    return round((datetime.fromisoformat(consent["expires_at"]) - now) / timedelta(days=1))
