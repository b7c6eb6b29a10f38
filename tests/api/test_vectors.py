"""Registering persons from vectors: found like those from photos, refused as a whole with the rows named."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.callers import CALLER
from tests.faces import portrait
from tests.galleries import make_open

from vultus.domain import Role
from vultus.errors import ConsentRequiredError, InvalidInputError
from vultus.index.coding import Quantizer
from vultus.services.enrolment.bulk import MAX_ROWS, VectorBatch
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tests.api.conftest import Api

    from vultus.domain import FloatArray

PATH = "/v1/collections/default/vectors"
CONSENT = {"purpose": "Entry", "recorded_by": "reception", "evidence_ref": "form 7"}


def person(external_id: str, vector: NDArray[Any], name: str | None = None) -> dict[str, Any]:
    coded = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return {"external_id": external_id, "name": name, "vector": coded}


def random_vectors(count: int) -> FloatArray:
    return np.random.default_rng(0).normal(size=(count, 128)).astype(np.float32)


@pytest.fixture
async def space_id(api: Api) -> str:
    return str((await api.client.get("/v1/models")).json()["items"][0]["contract_id"])


async def send(api: Api, space_id: str, *persons: dict[str, Any], status: int = 201, **changes: Any) -> Any:
    body = {"contract_id": space_id, "consent": CONSENT, "persons": persons, **changes}
    answer = await api.client.post(PATH, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_person_is_recognised_by_their_vector(api: Api) -> None:
    made = (await api.client.post("/v1/embeddings", files={"photo": portrait()})).json()
    (vector,) = (np.asarray(face["vector"], np.float32) for face in made["faces"])

    done = await send(api, made["contract_id"], person("E-1", 3 * vector, "Ada"), person("E-2", random_vectors(1)[0]))
    found = (await api.recognize(portrait(angle=4)))["faces"][0]

    assert done["registered"] == 2
    assert (found["verdict"], found["person"]["name"]) == ("match", "Ada")
    ada = found["person"]["id"]
    (consent,) = (await api.client.get(f"/v1/collections/default/persons/{ada}/consents")).json()["items"]
    assert {key: consent[key] for key in CONSENT} == CONSENT
    (entry,) = [one for one in (await api.client.get("/v1/audit")).json()["items"] if "vectors" in one["action"]]
    assert (entry["action"], entry["detail"], entry["person_id"]) == (
        "vectors.registered",
        {"persons": 2, "faces": 2},
        None,
    )
    gone = await api.client.delete(f"/v1/collections/default/persons/{ada}")
    assert (gone.json()["faces"], gone.json()["consents"]) == (1, 1)


async def test_a_refused_batch_names_its_rows_and_changes_nothing(api: Api, space_id: str) -> None:
    ada, bob = (person(name, vector) for name, vector in zip(("A", "B"), random_vectors(2), strict=True))
    await send(api, space_id, ada)

    taken = await send(api, space_id, bob, ada, status=409)
    twice = await send(api, space_id, bob, bob, status=422)
    bad = person("C", np.full(128, np.inf)), person("D", np.zeros(128))
    endless = await send(api, space_id, bob, *bad, status=422)
    short = await send(api, space_id, person("C", np.ones(127)), status=422)
    foreign = await send(api, "another", bob, status=422)
    past = await send(api, space_id, bob, status=422, consent={**CONSENT, "expires_at": "2026-01-01T00:00:00Z"})

    assert [one["code"] for one in (taken, twice, endless, short, foreign, past)] == [
        "already_exists",
        "invalid_input",
        "invalid_input",
        "contract_mismatch",
        "contract_mismatch",
        "invalid_input",
    ]
    assert [one["rows"] for one in (taken, twice, endless)] == [[1], [1], [1, 2]]
    assert "Row 1, 2, counted from 0" in endless["detail"]
    remaining = (await api.client.get("/v1/collections/default/persons")).json()["items"]
    assert [one["external_id"] for one in remaining] == ["A"]


@pytest.mark.parametrize(
    "changes",
    [
        {"persons": [{"external_id": "A", "vector": "!"}]},
        {"persons": [{"external_id": "A", "vector": 7}]},
        {"persons": [{"external_id": "A", "vector": "AAAA"}]},
        {"persons": [person("A", np.ones(128)), person("B", np.ones(127))]},
        {"persons": []},
        {"consent": None},
    ],
)
async def test_what_cannot_be_read_is_refused(api: Api, space_id: str, changes: dict[str, Any]) -> None:
    body = {"contract_id": space_id, "consent": CONSENT, "persons": [person("A", np.ones(128))], **changes}

    answer = await api.client.post(PATH, json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_the_role_is_enrol_and_the_body_may_be_long(api: Api, space_id: str) -> None:
    persons = [person(str(at), vector) for at, vector in enumerate(random_vectors(500))]
    body = {"contract_id": space_id, "consent": CONSENT, "persons": persons}

    refused = await api.client.post(PATH, json=body, headers=await api.key(Role.RECOGNIZE))
    done = await api.client.post(PATH, json=body, headers=await api.key(Role.ENROL))

    assert refused.status_code == 403
    assert done.json()["registered"] == 500
    assert len(done.request.content) > api.services.settings.server.max_json_bytes


async def test_a_collection_being_migrated_accepts_no_vectors(api: Api, space_id: str) -> None:
    async with api.services.database.transaction() as work:
        collection = await work.collections.get_collection_by_name("default")
        await work.collections.update_collection(collection.id, second_contract_id="another")

    refused = await send(api, space_id, person("A", np.ones(128)), status=409)

    assert (refused["code"], "Finish the transition" in refused["detail"]) == ("conflict", True)


def batch(space_id: str, external_ids: list[str], **changes: Any) -> VectorBatch:
    fields = {"names": [None] * len(external_ids), "vectors": random_vectors(len(external_ids))}
    return VectorBatch("default", space_id, external_ids, **{**fields, "consent": GRANT, **changes})


GRANT = ConsentGrant("Entry", "reception", expires_at=datetime.now(UTC) + timedelta(days=1))


async def test_known_persons_are_skipped_where_that_is_requested(api: Api, space_id: str) -> None:
    register = api.services.bulk_registrar.register
    await register(CALLER, batch(space_id, ["A"]))
    done = await register(CALLER, batch(space_id, ["A", "B"], skip_known=True))
    again = await register(CALLER, batch(space_id, ["A", "B"], skip_known=True))
    assert (done.registered, done.known, again.registered, again.known) == (1, 1, 0, 2)


async def test_many_vectors_are_stored_with_their_codes_and_few_once_there_is_a_quantizer(
    api: Api, space_id: str
) -> None:
    await make_open(api.services.database)
    register = api.services.bulk_registrar.register
    await register(CALLER, batch(space_id, ["few"]))
    many = batch(space_id, [str(at) for at in range(1_000)])
    collection = (await register(CALLER, many)).collection
    await register(CALLER, batch(space_id, ["later"]))
    async with api.services.database.transaction(read_only=True) as work:
        quantizer = await work.codes.find_quantizer(collection.id, space_id)
        (block,) = [block async for block in work.codes.load_codes(collection.id, space_id, 0)]
        uncoded, _ = await work.templates.list_uncoded_templates(collection.id, space_id, 0, 10)
    assert quantizer is not None
    vectors = many.vectors / np.linalg.norm(many.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(quantizer.centre, vectors.mean(axis=0), atol=1e-3)
    codes = Quantizer(quantizer.centre, quantizer.bits).encode_vectors(vectors)
    # A number at the boundary of a quantization step may fall on either side of it.
    assert (block.codes[:1_000] != codes).mean() < 1e-4
    assert (len(block.numbers), len(uncoded)) == (1_001, 1)


async def test_invalid_batches_that_no_edge_would_send_are_refused_too(api: Api, space_id: str) -> None:
    register = api.services.bulk_registrar.register
    many = [str(at) for at in range(MAX_ROWS + 1)]

    with pytest.raises(ConsentRequiredError):
        await register(CALLER, batch(space_id, ["A"], consent=None))
    with pytest.raises(InvalidInputError, match="1 to 5000 rows; 5001"):
        await register(CALLER, batch(space_id, many))
    with pytest.raises(InvalidInputError, match="one name a row"):
        await register(CALLER, batch(space_id, ["A"], names=[]))
    with pytest.raises(InvalidInputError, match=r"Row 101, 102, 103, .* and more, counted from 0"):
        await register(CALLER, batch(space_id, ["A"] * 20, first_row=100))
