"""Photos screened before a registration, and a key that asks about itself."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import Api
from tests.faces import nobody, portrait

from vultus.domain import Permission, Role


async def screen(api: Api, *photos: bytes, status: int = 200, headers: Any = None, **fields: Any) -> Any:
    files = [("photo", (f"{at}.jpg", photo)) for at, photo in enumerate(photos)]
    answer = await api.client.post("/v1/screen", data=fields, files=files, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_screening_says_what_a_registration_would_and_stores_nothing(api: Api) -> None:
    screened = await screen(api, portrait(), nobody(), b"no picture")

    assert [(one["photo"], one["filename"]) for one in screened["accepted"]] == [(0, "0.jpg")]
    assert screened["accepted"][0]["face"]["quality"]["size_px"] > 40
    assert [one["reasons"] for one in screened["rejected"]] == [["no_face"], ["not_an_image"]]
    collection = (await api.client.get("/v1/collections/default")).json()
    assert (collection["persons"], collection["faces"]) == (0, 0)
    refused = await api.register(nobody(), b"no picture", name="Ada", status=422)
    assert [one["reasons"] for one in refused["rejected"]] == [["no_face"], ["not_an_image"]]


async def test_screening_follows_the_collections_rule(api: Api) -> None:
    await api.client.patch("/v1/collections/default", json={"policy": {"enrol": {"min_size_px": 400}}})

    assert (await screen(api, portrait()))["rejected"][0]["reasons"] == ["too_small"]


async def test_screening_is_for_keys_that_may_enrol_and_for_as_many_photos_as_a_registration(api: Api) -> None:
    problem = await screen(api, portrait(), status=403, headers=await api.key(Role.RECOGNIZE))
    assert problem["needed"] == "enrol"
    too_many = await screen(api, *[b"x"] * 100, status=422)
    assert "were sent" in too_many["detail"]


async def test_every_key_may_read_what_it_may_do(api: Api) -> None:
    answer = await api.client.get("/v1/key", headers=await api.key(Role.RECOGNIZE))

    assert answer.status_code == 200
    assert answer.json()["permissions"] == [Permission.RECOGNIZE]
    assert "secret" not in answer.json()
    assert (await api.client.get("/v1/key", headers={"Authorization": "Bearer x"})).status_code == 401
