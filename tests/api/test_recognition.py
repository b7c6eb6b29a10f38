"""Recognition beyond one face: groups, uniqueness, quality, policies, comparisons, vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sqlalchemy import text
from tests.faces import STRANGER, astronaut, drawn, encoded, nobody, portrait

from vultus.index.candidates import CandidateIndex
from vultus.index.coding import Quantizer
from vultus.services.search.index_sync import _IndexEntry
from vultus.services.search.search import Searcher

if TYPE_CHECKING:
    from tests.api.conftest import Api


def side_by_side(*photos: Any) -> bytes:
    canvas = Image.new("RGB", (512 * len(photos), 512), (120, 120, 120))
    for at, photo in enumerate(photos):
        canvas.paste(Image.fromarray(photo).resize((512, 512)), (512 * at, 0))
    return encoded(canvas)


async def test_faces_of_a_group_are_answered_left_to_right(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    await api.register(encoded(drawn(STRANGER)), name="Bob")

    found = await api.recognize(side_by_side(drawn(STRANGER), astronaut()))

    assert [face["person"]["name"] for face in found["faces"]] == ["Bob", "Ada"]
    assert [face["verdict"] for face in found["faces"]] == ["match", "match"]


async def test_a_person_is_assigned_to_one_face_when_requested(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    twice = side_by_side(astronaut(), astronaut()[:, ::-1])

    usual = await api.recognize(twice)
    unique = await api.recognize(twice, unique_per_image="true")

    assert [face["verdict"] for face in usual["faces"]] == ["match", "match"]
    assert sorted(face["verdict"] for face in unique["faces"]) == ["match", "no_match"]


async def test_a_blurred_face_gets_no_verdict_about_who_it_is(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    blurred = Image.fromarray(astronaut()).filter(ImageFilter.GaussianBlur(6))

    (face,) = (await api.recognize(encoded(blurred)))["faces"]

    assert face["verdict"] == "low_quality"
    assert face["reasons"] == ["too_blurred"]


async def test_the_limit_counts_candidates_of_a_face(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    await api.register(encoded(drawn(STRANGER)), name="Bob")

    (face,) = (await api.recognize(portrait(scale=0.8), limit="1"))["faces"]

    assert [one["name"] for one in face["candidates"]] == ["Ada"]
    assert face["margin"] is not None


async def test_a_collection_with_target_fpir_reports_the_rate_it_reached(api: Api) -> None:
    made = await api.client.post("/v1/collections", json={"name": "gate", "policy": {"target_fpir": 0.01}})
    assert made.status_code == 201
    await api.register(portrait(), name="Ada", collection="gate")
    await api.register(encoded(drawn(STRANGER)), name="Bob", collection="gate")

    (face,) = (await api.recognize(portrait(scale=0.8), collection="gate"))["faces"]

    assert 0 < face["false_positive_identification_rate"] < 0.01
    assert face["false_match_rate"] == 0.01 < face["worst_group_false_match_rate"]


async def test_two_collections_do_not_see_each_other(api: Api) -> None:
    await api.client.post("/v1/collections", json={"name": "other"})
    await api.register(portrait(), name="Ada")

    (face,) = (await api.recognize(portrait(), collection="other", limit="5"))["faces"]

    assert (face["verdict"], face["candidates"], face["gallery_size"]) == ("no_match", [], 0)


async def test_a_collection_is_searched_with_its_current_state_and_name(api: Api) -> None:
    """Not with the state that an earlier search cached."""
    gate = (await api.client.post("/v1/collections", json={"name": "gate"})).json()["id"]
    ada = await api.register(portrait(), name="Ada", collection="gate")

    async def verdict(**fields: Any) -> tuple[str, str]:
        found = await api.recognize(portrait(scale=0.8), **{"collection": "gate", **fields})
        return found["collection_id"], found["faces"][0]["verdict"]

    lax = await verdict()
    await api.client.patch("/v1/collections/gate", json={"policy": {"threshold": 0.9999}})
    strict = [await verdict() for _ in range(2)]
    await api.client.patch("/v1/collections/gate", json={"name": "door", "policy": {"threshold": 0.9}})
    new = (await api.client.post("/v1/collections", json={"name": "gate"})).json()["id"]
    empty = (await api.recognize(nobody(), collection="gate"))["collection_id"]
    renamed = [await verdict(), await verdict(), await verdict(collection="door"), await verdict(collection=gate)]
    await api.client.delete("/v1/collections/gate")

    assert (lax, strict) == ((gate, "match"), [(gate, "no_match")] * 2)
    assert empty == new
    assert renamed == [(new, "no_match")] * 2 + [(gate, "match")] * 2
    assert ada["person"]["collection_id"] == gate
    for photo in (portrait(), nobody()):
        gone = await api.recognize(photo, status=404, collection="gate")
        assert gone["code"] == "not_found"


async def test_an_error_of_a_collection_is_not_cached(live_api: Api) -> None:
    """A network that is not loaded, required by a policy or by an embedding space; then it is required no more."""
    gate = (await live_api.client.post("/v1/collections", json={"name": "gate"})).json()["id"]
    await live_api.client.patch("/v1/collections/gate", json={"policy": {"liveness": "required"}})
    refused = await live_api.recognize(portrait(), status=409, collection="gate")
    await live_api.client.patch("/v1/collections/gate", json={"policy": {"liveness": "off"}})
    accepted = await live_api.recognize(portrait(), collection="gate")
    async with live_api.services.database.transaction() as work:
        await work._session.execute(
            text("UPDATE collections SET contract_id = 'elsewhere', updated_at = now() WHERE name = 'gate'")
        )
    not_loaded = [await live_api.recognize(portrait(), status=503, collection="gate") for _ in range(2)]
    await live_api.client.delete("/v1/collections/gate")
    gone = await live_api.recognize(portrait(), status=404, collection="gate")
    await live_api.client.post("/v1/collections", json={"name": "gate"})
    recreated = await live_api.recognize(portrait(), collection="gate")

    assert refused["code"] == "liveness_not_loaded"
    assert accepted["collection_id"] == gate != recreated["collection_id"]
    assert [each["code"] for each in not_loaded] == ["pack_not_loaded"] * 2
    assert gone["detail"] == "There is no collection named 'gate'."


async def test_an_index_of_a_deleted_collection_is_not_searched(api: Api) -> None:
    """Before the index is removed, another collection has the name."""
    gate = (await api.client.post("/v1/collections", json={"name": "gate"})).json()["id"]
    await api.register(portrait(), name="Ada", collection="gate")
    await api.recognize(portrait(), collection="gate")
    space = api.services.spaces.default
    index = CandidateIndex(Quantizer(np.zeros(space.dimension, np.float32)))
    held = api.services.indexes._entries
    held[UUID(gate), space.id] = _IndexEntry(index, 0)
    by_index = await api.recognize(portrait(), collection="gate")
    await api.client.delete("/v1/collections/gate")
    new = (await api.client.post("/v1/collections", json={"name": "gate"})).json()["id"]
    found = await api.recognize(portrait(), collection="gate")
    held.clear()

    assert by_index["faces"][0]["verdict"] == "match"
    assert (found["collection_id"], found["faces"][0]["verdict"]) == (new, "no_match")


async def test_two_photos_are_compared(api: Api) -> None:
    async def compare(first: bytes, second: bytes, **fields: str) -> Any:
        return (await api.client.post("/v1/compare", data=fields, files={"first": first, "second": second})).json()

    same = await compare(portrait(), portrait(angle=10))
    other = await compare(portrait(), encoded(drawn(STRANGER)))
    two_faces = side_by_side(astronaut(), astronaut())
    several = await compare(portrait(), two_faces)
    largest = await compare(portrait(), two_faces, largest_face="true")
    none = await compare(portrait(), nobody())
    broken = await compare(b"no photo", portrait())

    assert (same["verdict"], other["verdict"], largest["verdict"]) == ("match", "no_match", "match")
    assert same["similarity"] > other["similarity"]
    assert same["probability"] > 0.99 > other["probability"]
    assert (several["code"], several["faces"], several["photo"]) == ("several_faces", 2, "second")
    assert (none["code"], none["detail"].partition(":")[0]) == ("no_face", "second")
    assert (broken["code"], broken["photo"]) == ("not_an_image", "first")


async def test_a_photo_is_verified_against_a_person(api: Api) -> None:
    ada = (await api.register(portrait(), name="Ada"))["person"]["id"]

    async def verify(photo: bytes, person: str) -> Any:
        data = {"person_id": person}
        return (await api.client.post("/v1/verify", data=data, files={"photo": photo})).json()

    found = await verify(portrait(angle=5), ada)
    assert (found["verdict"], found["person"]) == ("match", {"id": ada, "external_id": None, "name": "Ada"})
    likely = api.services.spaces.default.calibration.compute_probability(found["similarity"])
    assert found["probability"] == pytest.approx(likely, abs=1e-3)
    other = await verify(encoded(drawn(STRANGER)), ada)
    assert (other["verdict"], other["person"]) == ("no_match", None)
    assert (await verify(portrait(), "019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"))["code"] == "not_found"


async def test_a_vector_finds_the_person_it_was_made_from(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    made = (await api.client.post("/v1/embeddings", files={"photo": portrait(angle=5)})).json()
    vector = np.asarray(made["faces"][0]["vector"])

    answer = await api.client.post(
        "/v1/search", json={"contract_id": made["contract_id"], "vector": (3 * vector).tolist()}
    )

    found = answer.json()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert (found["verdict"], found["person"]["name"]) == ("match", "Ada")


@pytest.mark.parametrize("change", ["patch", "delete"])
async def test_a_vector_is_decided_by_the_collection_as_its_search_sees_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """It may be changed or deleted between its lookup and its search."""
    await api.register(portrait(), name="Ada")
    made = (await api.client.post("/v1/embeddings", files={"photo": portrait(angle=5)})).json()
    body = {"contract_id": made["contract_id"], "vector": made["faces"][0]["vector"]}
    lax = (await api.client.post("/v1/search", json=body)).json()
    search = Searcher.search

    async def change_then_search(self: Searcher, query: Any) -> Any:
        monkeypatch.setattr(Searcher, "search", search)
        if change == "patch":
            await api.client.patch("/v1/collections/default", json={"policy": {"threshold": 0.9999}})
        else:
            assert (await api.client.delete("/v1/collections/default")).is_success
        return await search(self, query)

    monkeypatch.setattr(Searcher, "search", change_then_search)
    found = await api.client.post("/v1/search", json=body)

    assert lax["verdict"] == "match"
    if change == "patch":
        assert (found.json()["verdict"], found.json()["threshold"]) == ("no_match", 0.9999)
    else:
        assert found.status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"contract_id": "another", "vector": [1.0] * 128}, "contract_mismatch"),
        ({"contract_id": "ACTIVE", "vector": [1.0] * 127}, "contract_mismatch"),
        ({"contract_id": "ACTIVE", "vector": [0.0] * 128}, "invalid_input"),
        ({"contract_id": "ACTIVE", "vector": [1e200] * 128}, "invalid_input"),
        ({"contract_id": "ACTIVE", "vector": ["1"] * 127 + [True]}, "invalid_request"),
        ({"contract_id": "ACTIVE", "vector": []}, "invalid_request"),
    ],
)
async def test_a_vector_that_cannot_be_searched_is_refused(api: Api, body: dict[str, Any], code: str) -> None:
    space_id = api.services.spaces.default.id
    answer = await api.client.post(
        "/v1/search", json={**body, "contract_id": body["contract_id"].replace("ACTIVE", space_id)}
    )

    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_detection_neither_searches_nor_stores(api: Api) -> None:
    found = (await api.client.post("/v1/detect", files={"photo": portrait()})).json()

    (face,) = found["faces"]
    assert set(face) == {"box", "landmarks", "score", "quality", "liveness"}
    assert found["photo"]["width"] == 512


async def test_twenty_people_in_one_photo_are_all_recognised(api: Api) -> None:
    await api.register(portrait(), name="Ada")
    canvas = Image.new("RGB", (5 * 300, 4 * 300), (100, 110, 120))
    for at in range(20):
        brighter = np.clip(astronaut()[:300, 80:380] * (0.7 + 0.03 * at), 0, 255).astype(np.uint8)
        canvas.paste(Image.fromarray(brighter[:, :: (-1) ** at]), (300 * (at % 5), 300 * (at // 5)))

    found = await api.recognize(encoded(canvas))

    assert [face["verdict"] for face in found["faces"]] == ["match"] * 20
