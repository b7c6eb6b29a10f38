"""Limits of a key as a client meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.api.test_recognition import side_by_side
from tests.callers import CALLER
from tests.faces import STRANGER, astronaut, drawn, encoded, portrait

from vultus.domain import Role

if TYPE_CHECKING:
    import pytest
    from tests.api.conftest import Api

    from vultus.models.pipeline import FacePipeline


async def make_key(api: Api, searches_per_hour: int) -> dict[str, str]:
    _, secret = await api.services.access.create_key(
        CALLER, "test", Role.RECOGNIZE, searches_per_hour=searches_per_hour
    )
    return {"Authorization": f"Bearer {secret}"}


async def test_every_answer_says_how_many_searches_are_left_and_the_last_is_429(api: Api) -> None:
    headers, two = await make_key(api, 3), side_by_side(drawn(STRANGER), astronaut())

    async def recognize(photo: bytes) -> Any:
        return await api.client.post("/v1/recognize", files={"photo": photo}, headers=headers)

    first, refused, last, none = [await recognize(photo) for photo in (two, two, portrait(), portrait())]

    assert [answer.status_code for answer in (first, refused, last, none)] == [200, 429, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[:2] for answer in (first, refused, last, none)] == [
        ['"searches"', f"r={left}"] for left in (1, 1, 0, 0)
    ]
    assert none.headers["ratelimit-policy"] == '"searches";q=3;w=3600'
    assert 0 < int(none.headers["retry-after"]) <= 3600
    assert (none.json()["code"], none.json()["limit"]) == ("search_limit", 3)


async def test_a_person_is_verified_a_few_times_in_vain_and_then_only_after_a_wait(api: Api) -> None:
    ada = (await api.register(portrait(), name="Ada"))["person"]["id"]
    headers = await make_key(api, 100)

    async def verify(photo: bytes, person: str = ada) -> Any:
        data, files = {"person_id": person}, {"photo": photo}
        return await api.client.post("/v1/verify", data=data, files=files, headers=headers)

    stranger = encoded(drawn(STRANGER))
    answers = [await verify(photo) for photo in (portrait(), *[stranger] * 5, portrait())]
    unknown = await verify(stranger, str(uuid4()))

    assert [answer.status_code for answer in answers] == [200] * 6 + [429]
    assert [answer.json()["verdict"] for answer in answers[:-1]] == ["match"] + ["no_match"] * 5
    assert answers[-1].json()["code"] == "verification_limit"
    assert 25 <= int(answers[-1].headers["retry-after"]) <= 30
    assert unknown.status_code == 404


async def test_of_too_many_faces_the_largest_are_analysed_and_the_answer_says_so(
    api: Api, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline._finder, "_max_faces", 1)

    answer = (await api.client.post("/v1/detect", files={"photo": side_by_side(drawn(STRANGER), astronaut())})).json()

    assert (len(answer["faces"]), answer["photo"]["faces_left_out"]) == (1, 1)
    assert answer["photo"]["smallest_face_px"] == 40
