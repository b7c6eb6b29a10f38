"""Collections, persons, faces and consents: create, read, list, change, delete, erase."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from tests.faces import STRANGER, drawn, encoded, portrait

from vultus.domain import Role

if TYPE_CHECKING:
    from tests.api.conftest import Api

PEOPLE = "/v1/collections/default/persons"
CONSENT = {"purpose": "Tests", "recorded_by": "tests@example.org"}


async def verdict(api: Api, photo: bytes) -> str:
    (face,) = (await api.recognize(photo))["faces"]
    found: str = face["verdict"]
    return found


async def test_an_action_that_there_is_not_is_refused_with_the_nearest(api: Api) -> None:
    for action, hint in (("person.erase", "did you mean 'person.erased'?"), ("?", "there are ")):
        refused = await api.client.get("/v1/audit", params={"action": action})

        assert refused.status_code == 422
        assert hint in refused.json()["detail"]
    assert await actions(api, action="person.erased") == []


async def actions(api: Api, **query: str) -> list[str]:
    return [entry["action"] for entry in (await api.client.get("/v1/audit", params=query)).json()["items"]]


async def test_deleting_a_collection_deletes_everybody_in_it(api: Api) -> None:
    made = (await api.client.post("/v1/collections", json={"name": "guests", "retention_days": 7})).json()
    await api.register(portrait(), name="Ada", collection="guests")

    read = (await api.client.get(f"/v1/collections/{made['id']}")).json()
    changed = (await api.client.patch("/v1/collections/guests", json={"policy": {"threshold": 0.9}})).json()
    deleted = await api.client.delete("/v1/collections/guests")
    gone = await api.client.get("/v1/collections/guests")

    assert (read["name"], read["persons"], read["faces"]) == ("guests", 1, 1)
    assert (changed["policy"]["threshold"], changed["policy"]["target_fmr"], changed["retention_days"]) == (
        0.9,
        None,
        7,
    )
    assert (deleted.status_code, gone.status_code) == (204, 404)


async def test_a_name_is_taken_once(api: Api) -> None:
    again = await api.client.post("/v1/collections", json={"name": "default"})

    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


async def test_a_policy_with_two_thresholds_is_refused(api: Api) -> None:
    both = await api.client.post(
        "/v1/collections", json={"name": "x", "policy": {"threshold": 0.9, "target_fmr": 0.001}}
    )

    assert both.status_code == 422
    assert both.json()["errors"][0]["path"] == "body.policy"


async def test_pages_hold_everybody_once_in_order(api: Api) -> None:
    for number in range(6):
        await api.client.post(PEOPLE, json={"external_id": f"E-{number}", "consent": CONSENT})

    seen, cursor, pages = list[str](), None, 0
    while True:
        pages += 1
        params: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await api.client.get(PEOPLE, params=params)).json()
        seen += [person["external_id"] for person in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert (seen, pages) == ([f"E-{number}" for number in range(6)], 3)


async def test_a_person_is_changed_and_found_by_external_id(api: Api) -> None:
    made = (await api.client.post(PEOPLE, json={"name": "Ada", "consent": CONSENT})).json()

    await api.client.patch(f"{PEOPLE}/{made['id']}", json={"external_id": "E-9", "metadata": {"floor": 2}})
    found = (await api.client.get(PEOPLE, params={"external_id": "E-9"})).json()["items"]

    assert [(one["id"], one["name"], one["metadata"]) for one in found] == [(made["id"], "Ada", {"floor": 2})]


async def test_a_person_is_meant_by_their_external_id_wherever_by_their_id(api: Api) -> None:
    ada = (await api.register(portrait(), name="Ada", external_id="E 17/a b"))["person"]
    await api.client.patch(f"{PEOPLE}/{ada['id']}", json={"external_id": "E 17"})
    path = f"{PEOPLE}/external_id:%20E%2017"  # blanks around it do not count, as where it was given

    read = await api.client.get(path)
    added = await api.client.post(
        f"{path}/faces",
        data={"consent_purpose": "Tests", "consent_recorded_by": "tests"},
        files={"photo": portrait(mirror=True)},
    )
    consent = await api.client.post(f"{path}/consents", json=CONSENT)
    changed = await api.client.patch(f"{path}/consents/{consent.json()['id']}", json={"evidence_ref": "form 3"})
    faces = (await api.client.get(f"{path}/faces")).json()["items"]
    face = await api.client.get(f"{path}/faces/{faces[0]['id']}")
    verified = await api.client.post("/v1/verify", data={"external_id": "E 17"}, files={"photo": portrait(angle=3)})
    listed = await api.client.get(PEOPLE, params={"external_id": " E 17 "})
    erased = await api.client.delete(path)

    assert (read.json()["id"], added.json()["created"], len(faces)) == (ada["id"], False, 2)
    assert (consent.json()["person_id"], changed.json()["evidence_ref"]) == (ada["id"], "form 3")
    assert face.json() == faces[0]
    assert (verified.json()["verdict"], verified.json()["person"]["id"]) == ("match", ada["id"])
    assert [one["id"] for one in listed.json()["items"]] == [ada["id"]]
    assert erased.json()["person_id"] == ada["id"]


async def test_an_external_id_that_nobody_has_creates_nobody_at_a_path(api: Api) -> None:
    form = {"consent_purpose": "Tests", "consent_recorded_by": "tests"}

    added = await api.client.post(f"{PEOPLE}/external_id:E-9/faces", data=form, files={"photo": portrait()})
    unknown = await api.client.get(f"{PEOPLE}/E-9")
    verified = await api.client.post("/v1/verify", files={"photo": portrait()})

    assert (added.status_code, added.json()["detail"]) == (
        404,
        "The collection has no person with the external_id 'E-9'.",
    )
    assert unknown.json()["errors"] == [
        {
            "path": "path.person",
            "message": "must be a person's id, or 'external_id:' and your own id, as in external_id:E-1017",
            "code": "person_reference",
        }
    ]
    assert "person_id or external_id" in verified.json()["detail"]
    assert (await api.client.get(PEOPLE)).json()["items"] == []


async def test_deleting_a_person_removes_everything_derived_from_them(api: Api) -> None:
    ada = (await api.register(portrait(), portrait(mirror=True), name="Ada"))["person"]["id"]

    erased = (await api.client.delete(f"{PEOPLE}/{ada}")).json()

    path = erased.pop("erasure_path")
    assert erased == {
        "person_id": ada,
        "person_erased": True,
        "faces": 2,
        "consents": 1,
        "erasure_id": path.removeprefix("/v1/erasures/"),
        "state": "unreadable",
    }
    assert (await api.client.get(path)).json()["person_id"] == ada
    assert await verdict(api, portrait()) == "no_match"
    for path in ("", "/faces", "/consents"):
        assert (await api.client.get(f"{PEOPLE}/{ada}{path}")).status_code == 404
    assert await actions(api, person_id=ada) == ["person.registered", "person.erased"]


async def test_the_audit_record_and_the_outbox_keep_no_name(api: Api) -> None:
    await api.register(portrait(), name="Ada Lovelace", external_id="E-17")

    record = (await api.client.get("/v1/audit")).text
    async with api.services.database.transaction() as work:
        record += str(await work.outbox.list_events(after=0, until=2**62, limit=99))

    assert record.count("person.registered") == 2
    assert "Lovelace" not in record
    assert "E-17" not in record


async def test_deleting_a_face_keeps_the_person(api: Api) -> None:
    done = await api.register(portrait(), portrait(mirror=True), name="Ada")
    person, face = done["person"]["id"], done["accepted"][0]["face"]["id"]

    deleted = await api.client.delete(f"{PEOPLE}/{person}/faces/{face}")
    rest = (await api.client.get(f"{PEOPLE}/{person}/faces")).json()["items"]

    assert deleted.status_code == 204
    assert [one["id"] for one in rest] == [done["accepted"][1]["face"]["id"]]
    assert (await api.client.get(f"{PEOPLE}/{person}/faces/{face}")).status_code == 404


async def test_what_is_held_about_a_person_is_exported_and_vectors_by_permission_only(api: Api) -> None:
    ada = await api.register(portrait(), name="Ada Lovelace", external_id="E-1", metadata='{"floor": 2}')
    await api.register(encoded(drawn(STRANGER)), name="Bob")
    path = f"{PEOPLE}/external_id:E-1/export"
    manager = await api.key(Role.ENROL)

    whole = (await api.client.get(path, params={"vectors": "true"})).json()
    managed = (await api.client.get(path, headers=manager)).json()
    refused = await api.client.get(path, params={"vectors": "true"}, headers=manager)

    assert (whole["person"], whole["consents"]) == (ada["person"], [ada["consent"]])
    assert [face["id"] for face in whole["faces"]] == [ada["accepted"][0]["face"]["id"]]
    assert len(whole["templates"][0]["vector"]) == 128
    assert [entry["action"] for entry in whole["audit"]] == ["person.registered"]
    assert (managed["templates"], managed["audit"], managed["person"]) == ([], [], ada["person"])
    assert (refused.status_code, refused.json()["needed"]) == (403, "scores")


async def test_the_export_is_a_page_for_people_that_holds_all_of_it_and_nothing_of_others(api: Api) -> None:
    hostile = "<script>alert(1)</script>\"'&{{7*7}}"
    await api.client.patch("/v1/collections/default", json={"policy": {"record_searches": "all"}})
    await api.register(encoded(drawn(STRANGER)), name="Bob Somebody")
    ada = await api.register(portrait(), name=hostile, external_id="E-1", metadata='{"<b>floor": "<i>2"}')
    path = f"{PEOPLE}/{ada['person']['id']}"
    await api.client.patch(path, json={"name": f"New {hostile}"})
    await api.recognize(portrait())

    asked = await api.client.get(f"{path}/export", params={"format": "html", "vectors": "true"})
    accepted = await api.client.get(f"{path}/export", headers={"Accept": "text/html,*/*;q=0.8"})
    plain = await api.client.get(f"{path}/export", headers={"Accept": "text/html"}, params={"format": "json"})
    held, page = plain.json(), asked.text

    assert asked.headers["content-type"] == accepted.headers["content-type"] == "text/html; charset=utf-8"
    assert asked.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    shown = HtmlText(page)
    assert shown.tags.isdisjoint({"script", "b", "i", "img", "link", "iframe", "form", "a"})
    assert not [name for name, _ in shown.attributes if name.startswith(("on", "src", "href"))]
    for value in (
        *(hostile, "<b>floor", "<i>2", "E-1", ada["consent"]["purpose"], ada["consent"]["recorded_by"]),
        *(face["source_sha256"] for face in held["faces"]),
        *(entry["action"] for entry in held["audit"]),
        *(record["kind"] for record in held["decisions"]),
        f"name.from: {hostile}",
    ):
        assert str(value) in shown.text, value
    assert [record["verdict"] for record in held["decisions"]] == ["match"]
    assert "Bob" not in page
    assert "Bob" not in plain.text


class HtmlText(HTMLParser):
    """The text of a page, and what is in it besides."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_persons_are_found_by_a_part_of_their_name(api: Api) -> None:
    for name in ("Ada Lovelace", "Åsa 100%", "Bob"):
        await api.client.post(PEOPLE, json={"name": name, "consent": CONSENT})

    async def find(name: str) -> list[str]:
        return [one["name"] for one in (await api.client.get(PEOPLE, params={"name": name})).json()["items"]]

    assert await find("lOVE") == ["Ada Lovelace"]
    assert await find("åsa") == ["Åsa 100%"]
    assert await find("0%") == ["Åsa 100%"]
    assert await find("_") == []


async def test_deleting_one_collection_three_times_concurrently_is_done_once(api: Api) -> None:
    await api.client.post("/v1/collections", json={"name": "guests"})

    answers = await asyncio.gather(
        *(api.client.delete("/v1/collections/guests") for _ in range(3)), api.client.get("/v1/collections/guests")
    )

    assert sorted(answer.status_code for answer in answers[:3]) == [204, 404, 404]
    assert answers[3].status_code in {200, 404}


async def test_a_collection_is_not_renamed_to_an_id(api: Api) -> None:
    refused = await api.client.patch("/v1/collections/default", json={"name": "019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"})

    assert refused.status_code == 422


async def test_texts_are_under_one_rule_in_every_field(api: Api) -> None:
    """What would move a terminal's cursor is refused as well as what would hide; too long is said in characters."""
    person = {"external_id": "E-7", "consent": CONSENT}
    refused = [
        await api.client.post(PEOPLE, json={**person, "name": "a\x9b31mred"}),
        await api.client.post(PEOPLE, json={**person, "metadata": {"a\u202e": 1}}),
        await api.client.post(PEOPLE, json={**person, "consent": {**CONSENT, "purpose": "p\u200b"}}),
        await api.client.post("/v1/keys", json={"name": "\x85"}),
    ]
    long = await api.client.post(PEOPLE, json={**person, "name": "x" * 201})

    assert [answer.status_code for answer in refused] == [422] * 4
    assert "U+009B" in refused[0].json()["detail"]
    assert "at most 200 characters; it has 201" in long.json()["detail"]
    assert (await api.client.get(PEOPLE)).json()["items"] == []


async def test_an_id_is_found_as_it_was_sent(api: Api) -> None:
    sent = " E-7\u00a0"
    made = (await api.client.post(PEOPLE, json={"external_id": sent, "consent": CONSENT})).json()

    found = (await api.client.get(PEOPLE, params={"external_id": sent})).json()["items"]

    assert (made["external_id"], [person["id"] for person in found]) == ("E-7", [made["id"]])
