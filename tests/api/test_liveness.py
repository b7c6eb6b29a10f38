"""A picture of a person is neither matched nor enrolled where liveness is required, and only reported otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.faces import astronaut, encoded, portrait
from tests.recapture import on_screen
from tests.weights import real_weights

from vultus.domain import Liveness, LivenessReason
from vultus.models.liveness import load_minifasnet
from vultus.models.liveness.ensemble import LivenessEnsemble, LivenessRule
from vultus.models.liveness.minifasnet_graph import build_minifasnet

if TYPE_CHECKING:
    from tests.api.conftest import Api

    from vultus.domain import DetectedFace, Pixels
    from vultus.models.pipeline import FacePipeline

HOME = "/v1/collections/default"


class FixedLiveness:
    """Returns the same liveness for every face."""

    def __init__(self, score: float, reason: LivenessReason) -> None:
        self.result = Liveness(score, reason)

    def assess_liveness(self, pixels: Pixels, face: DetectedFace) -> Liveness:
        assert pixels.ndim == 3
        assert face.box.width > 0
        return self.result


@pytest.fixture
def use_liveness(pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_detector(detector: Any) -> None:
        monkeypatch.setattr(pipeline, "liveness", detector)

    return set_detector


async def verify(api: Api, person_id: str, photo: bytes, **fields: Any) -> Any:
    answer = await api.client.post("/v1/verify", data={"person_id": person_id, **fields}, files={"photo": photo})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_presentation_that_is_rejected_is_never_matched(api: Api, use_liveness: Any) -> None:
    person = (await api.register(portrait(), external_id="ada"))["person"]["id"]
    use_liveness(FixedLiveness(0.1, LivenessReason.SPOOF))

    (reported,) = (await api.recognize(portrait(angle=5), liveness="report"))["faces"]
    (refused,) = (await api.recognize(portrait(angle=5), liveness="required", limit="5"))["faces"]
    verified = await verify(api, person, portrait(angle=5), liveness="required")

    assert reported["liveness"] == {"score": 0.1, "live": False, "reason": "spoof"}
    assert (reported["verdict"], reported["person"]["id"]) == ("match", person)
    assert (refused["verdict"], refused["reasons"], refused["candidates"]) == ("not_live", ["spoof"], [])
    assert (refused["person"], verified["person"]) == (None, None)
    assert (verified["verdict"], verified["similarity"], verified["probability"]) == ("not_live", None, None)
    assert verified["face"]["liveness"]["reason"] == "spoof"


async def test_a_picture_of_a_person_is_not_enrolled(api: Api, use_liveness: Any) -> None:
    use_liveness(FixedLiveness(0.2, LivenessReason.CROP_PAST_PHOTO))

    refused = await api.register(portrait(), external_id="ada", liveness="required", status=422)
    (rejected,) = refused["rejected"]
    taken = await api.register(portrait(), external_id="ada", liveness="report")

    assert (rejected["reasons"], "step back" in rejected["detail"]) == (["not_live", "crop_past_photo"], True)
    assert taken["accepted"][0]["liveness"] == {"score": 0.2, "live": False, "reason": "crop_past_photo"}


async def test_two_photos_are_not_compared_when_one_is_a_picture_of_a_person(api: Api, use_liveness: Any) -> None:
    use_liveness(FixedLiveness(0.1, LivenessReason.SPOOF))
    files = {"first": portrait(), "second": portrait(angle=5)}

    answer = (await api.client.post("/v1/compare", data={"liveness": "required"}, files=files)).json()

    assert (answer["verdict"], answer["similarity"], answer["probability"]) == ("not_live", None, None)


async def test_a_face_with_a_low_network_score_is_refused_if_the_policy_requires_one(
    api: Api, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scorer:
        def score_chips(self, chips: Pixels) -> Any:
            assert chips.shape == (1, 112, 112, 3)
            return np.array([0.3], np.float32)

    monkeypatch.setattr(pipeline, "scorer", Scorer())
    taken = await api.register(portrait(), external_id="ada")
    rule = (await api.client.get(HOME)).json()["policy"]["recognize"] | {"min_network_score": 0.4}
    await api.client.patch(HOME, json={"policy": {"recognize": rule}})

    (face,) = (await api.recognize(portrait(angle=5)))["faces"]

    assert taken["accepted"]
    assert (face["quality"]["network_score"], face["verdict"], face["reasons"]) == (
        0.3,
        "low_quality",
        ["poor_for_network"],
    )


async def test_a_policy_that_requires_liveness_cannot_be_overridden(live_api: Api, use_liveness: Any) -> None:
    await live_api.register(portrait(), external_id="ada")
    use_liveness(FixedLiveness(0.1, LivenessReason.SPOOF))
    changed = await live_api.client.patch(HOME, json={"policy": {"liveness": "required"}})

    (face,) = (await live_api.recognize(portrait(angle=5), liveness="off"))["faces"]

    assert changed.json()["policy"]["liveness"] == "required"
    assert face["verdict"] == "not_live"


async def test_requesting_liveness_without_a_network_says_how_to_get_one(api: Api) -> None:
    refused = [
        await api.recognize(portrait(), status=409, liveness="report"),
        await api.register(portrait(), status=409, name="Ada", liveness="required"),
        (await api.client.patch(HOME, json={"policy": {"liveness": "required"}})).json(),
        (await api.client.post("/v1/collections", json={"name": "x", "policy": {"liveness": "report"}})).json(),
    ]

    assert {one["code"] for one in refused} == {"liveness_not_loaded"}
    assert all("VULTUS_INFERENCE__LIVENESS" in one["detail"] for one in refused)
    assert (await api.client.get(HOME)).json()["policy"]["liveness"] == "off"


async def test_real_networks_distinguish_a_person_from_a_screen(api: Api, use_liveness: Any) -> None:
    names = ("2.7_80x80_MiniFASNetV2.pth", "4_0_0_80x80_MiniFASNetV1SE.pth")
    minifasnet = load_minifasnet(*(build_minifasnet(real_weights(name)) for name in names))
    use_liveness(LivenessEnsemble([minifasnet], LivenessRule()))

    (live,) = (await api.recognize(portrait(), liveness="required"))["faces"]
    (screen,) = (await api.recognize(encoded(on_screen(astronaut(), 1)), liveness="required"))["faces"]

    assert (live["verdict"], live["liveness"]["live"]) == ("no_match", True)
    assert (screen["verdict"], screen["liveness"]["reason"]) == ("not_live", "spoof")


async def test_a_policy_that_was_relaxed_meanwhile_decides(
    live_api: Api, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "liveness", FixedLiveness(0.1, LivenessReason.SPOOF))
    await live_api.register(portrait(), name="Ada")

    async def verdict(mode: str) -> str:
        await live_api.client.patch("/v1/collections/default", json={"policy": {"liveness": mode}})
        return str((await live_api.recognize(portrait(angle=5)))["faces"][0]["verdict"])

    assert [await verdict(mode) for mode in ("required", "off")] == ["not_live", "match"]
