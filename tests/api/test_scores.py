"""Scores are a permission: without it there is the verdict, the person whom a match names, and a band."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.callers import CALLER
from tests.faces import STRANGER, drawn, encoded, portrait

from vultus.domain import Permission, Role

if TYPE_CHECKING:
    from tests.api.conftest import Api

SCORES = {"similarity", "probability", "margin", "candidates"}
"""Members of answers that depend on a cosine."""


def list_scores(value: Any) -> list[str]:
    """Return the names of all members of an answer, at any depth, that show a score."""
    if isinstance(value, list):
        return [name for item in value for name in list_scores(item)]
    if not isinstance(value, dict):
        return []
    shown = [name for name, member in value.items() if name in SCORES and member is not None]
    return shown + [name for member in value.values() for name in list_scores(member)]


async def make_key(api: Api, *permissions: Permission) -> dict[str, str]:
    _, secret = await api.services.access.create_key(CALLER, "test", set(permissions))
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
async def ada(api: Api) -> Any:
    return (await api.register(portrait(), name="Ada", external_id="E-1"))["person"]


@pytest.mark.parametrize(("photo", "verdict"), [(portrait(angle=4), "match"), (encoded(drawn(STRANGER)), "no_match")])
async def test_a_key_without_scores_learns_the_verdict_the_person_and_a_band(
    api: Api, ada: Any, photo: bytes, verdict: str
) -> None:
    async def ask(headers: dict[str, str], **more: str) -> list[Any]:
        post = api.client.post
        asked = [
            await post("/v1/recognize", data=more, files={"photo": photo}, headers=headers),
            await post("/v1/verify", data={"person_id": ada["id"]}, files={"photo": photo}, headers=headers),
            await post("/v1/compare", files={"first": photo, "second": portrait()}, headers=headers),
            await post("/v1/detect", files={"photo": photo}, headers=headers),
        ]
        assert [answer.status_code for answer in asked] == [200] * len(asked), asked[0].text
        return [answer.json() for answer in asked]

    hidden = await ask(await api.key(Role.RECOGNIZE))
    shown = await ask(await make_key(api, Permission.RECOGNIZE, Permission.SCORES), limit="3")

    assert list_scores(hidden) == []
    assert set(list_scores(shown)) >= {"similarity", "probability", "candidates"}
    for answer in (hidden[0]["faces"][0], hidden[1]):
        assert (answer["verdict"], answer["band"]) == (verdict, "clear" if verdict == "match" else None)
        assert answer["person"] == ({"id": ada["id"], "external_id": "E-1", "name": "Ada"} if answer["band"] else None)


async def test_candidates_are_refused_rather_than_left_out(api: Api, ada: Any) -> None:
    photo = portrait(angle=4)
    searching = await make_key(api, Permission.READ, Permission.SEARCH, Permission.RECOGNIZE)
    made = await api.client.post("/v1/embeddings", files={"photo": photo}, headers=searching)
    body = {"contract_id": made.json()["contract_id"], "vector": made.json()["faces"][0]["vector"]}

    refused = [
        await api.client.post("/v1/recognize", data={"limit": "1"}, files={"photo": photo}, headers=searching),
        await api.client.post("/v1/search", json=body, headers=searching),
    ]
    found = await api.client.post("/v1/search", json={**body, "limit": 0}, headers=searching)

    assert [(answer.status_code, answer.json()["needed"]) for answer in refused] == [(403, "scores")] * 2
    assert (found.status_code, list_scores(found.json())) == (200, [])
    assert found.json()["person"]["id"] == ada["id"]


async def test_a_face_of_another_person_is_refused_without_saying_how_alike(api: Api, ada: Any) -> None:
    photo = portrait(angle=3)

    hidden = await api.register(photo, name="Eve", status=422, headers=await api.key(Role.ENROL))
    shown = await api.register(photo, name="Eve", status=422, headers=await api.key(Role.MANAGE))

    assert hidden["rejected"][0]["reasons"] == ["enrolled_as_other_person"]
    assert hidden["rejected"][0]["person_id"] == ada["id"]
    assert (list_scores(hidden), list_scores(shown)) == ([], ["similarity"])
