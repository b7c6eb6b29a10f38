"""The trunk: a person is registered from a photo and recognised in another one, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faces import STRANGER, drawn, encoded, nobody, portrait

if TYPE_CHECKING:
    from tests.api.conftest import Api


async def test_a_registered_person_is_recognised_in_another_photo(api: Api) -> None:
    registered = await api.register(portrait(), name="Ada", external_id="E-1")

    found = await api.recognize(portrait(scale=0.7, angle=8, brightness=0.8), limit="1")

    (face,) = found["faces"]
    assert face["verdict"] == "match"
    assert face["person"] == {"id": registered["person"]["id"], "external_id": "E-1", "name": "Ada"}
    assert face["candidates"][0]["person_id"] == registered["person"]["id"]
    assert face["candidates"][0]["similarity"] > face["threshold"]
    assert face["false_match_rate"] == 1e-2
    assert face["worst_group_false_match_rate"] == 0.0936
    assert face["false_positive_identification_rate"] < 1e-4
    assert face["gallery_size"] == 1
    assert face["landmarks"]["left_eye"]["x"] < face["landmarks"]["right_eye"]["x"]


async def test_a_stranger_is_not_matched(api: Api) -> None:
    await api.register(portrait(), name="Ada")

    (face,) = (await api.recognize(encoded(drawn(STRANGER))))["faces"]
    (asked,) = (await api.recognize(encoded(drawn(STRANGER)), limit="3"))["faces"]

    assert face["verdict"] == "no_match"
    assert face["reasons"] == ["below_threshold"]
    assert (face["person"], face["candidates"]) == (None, None)
    assert (asked["person"], [one["name"] for one in asked["candidates"]]) == (None, ["Ada"])


async def test_a_photo_without_a_face_is_an_empty_list(api: Api) -> None:
    found = await api.recognize(nobody())

    assert found["faces"] == []
