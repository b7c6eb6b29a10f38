"""Attacks classified as live, live faces classified as attacks, and photos not assessed are distinguished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vultus.domain import Liveness, LivenessReason
from vultus.errors import InvalidInputError, NotAnImageError
from vultus.evaluation.datasets import DataSet
from vultus.evaluation.liveness import (
    AssessedPhotos,
    assess_photos,
    compute_mean_rate,
    evaluate_liveness,
    read_presentations,
)
from vultus.evaluation.runner import PhotoFailure
from vultus.statistics.intervals import compute_clopper_pearson_rate

THRESHOLD = 0.5


def read_liveness(photo: bytes) -> tuple[Liveness, Liveness] | None:
    """Parse photos such as `0.7`, `0.9 face_too_small`, `none` and an empty one; a second network reverses scores."""
    words = photo.decode().split()
    if not words:
        raise NotAnImageError("empty")
    if words == ["none"]:
        return None
    score = float(words[0])
    decided = LivenessReason.LIVE if score >= THRESHOLD else LivenessReason.SPOOF
    reason = LivenessReason(words[1]) if words[1:] else decided
    return Liveness(score, reason), Liveness(1 - score, reason)


def assess(data: DataSet, workers: int = 1) -> AssessedPhotos:
    """Assess photos by the first network."""
    return assess_photos(read_liveness, data, workers=workers)[0]


def presented(root: Path, **photos: list[str]) -> Path:
    """Write photos; a folder's name has double underscores for slashes."""
    for folder, texts in photos.items():
        target = root / folder.replace("__", "/")
        target.mkdir(parents=True, exist_ok=True)
        for at, text in enumerate(texts):
            (target / f"{at}.jpg").write_text(text)
    return root


def test_each_folder_of_attacks_is_a_species_with_all_below_it(tmp_path: Path) -> None:
    root = presented(
        tmp_path, live__day_1=["1"], live=["1"], spoof__screen__phone=["0"], spoof__print=["0", "0"], spoof=["0"]
    )
    (root / "spoof/empty").mkdir()
    (root / "live/notes.txt").write_text("no photo")

    data = read_presentations(root)

    counts = dict(zip(data.persons, data.photo_counts.tolist(), strict=True))
    assert counts == {"live": 2, "spoof": 1, "spoof/print": 2, "spoof/screen": 1}
    assert data.photos[:2] == ("live/0.jpg", "live/day_1/0.jpg")
    assert data.photos[-1] == "spoof/screen/phone/0.jpg"
    assert (np.diff(data.person_indices) >= 0).all()


@pytest.mark.parametrize("photos", [{"live": ["1"]}, {"spoof__print": ["0"]}, {"spoof": ["0"], "live": []}])
def test_both_kinds_of_photos_are_needed(tmp_path: Path, photos: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInputError, match="needs photos of live people in"):
        read_presentations(presented(tmp_path, **photos))


def test_errors_are_counted_by_species_and_the_worst_leads(tmp_path: Path) -> None:
    root = presented(
        tmp_path,
        live=["0.9", "0.8", "0.7", "0.2"],
        spoof__print=["0.1", "0.1", "0.1", "0.6"],
        spoof__mask=["0.5", "0.4"],
    )
    data = read_presentations(root)

    point = evaluate_liveness(data, assess(data, workers=2), THRESHOLD).default

    assert {kind: (rate.hits, rate.trials) for kind, rate in point.apcer.items()} == {
        "spoof/mask": (1, 2),
        "spoof/print": (1, 4),
    }
    assert point.worst == "spoof/mask"
    assert (point.bpcer.hits, point.bpcer.trials) == (1, 4)
    assert point.acer.value == (0.5 + 0.25) / 2
    assert point.apcer["spoof/mask"] == compute_clopper_pearson_rate(1, 2)


def test_photos_that_were_not_assessed_are_in_no_error_rate(tmp_path: Path) -> None:
    root = presented(
        tmp_path,
        live=["0.9", "none", "0.1 face_too_small", ""],
        spoof__print=["0.1", "0.9 crop_past_photo"],
        spoof__mask=["none"],
    )
    data = read_presentations(root)
    assessed = assess(data)

    result = evaluate_liveness(data, assessed, THRESHOLD)

    assert assessed.failures == (
        PhotoFailure("live/1.jpg", "no_face"),
        PhotoFailure("live/2.jpg", "face_too_small"),
        PhotoFailure("live/3.jpg", "not_an_image"),
        PhotoFailure("spoof/mask/0.jpg", "no_face"),
        PhotoFailure("spoof/print/1.jpg", "crop_past_photo"),
    )
    assert (result.bpnrr.hits, result.bpnrr.trials) == (3, 4)
    assert {kind: rate.value for kind, rate in result.apnrr.items()} == {"spoof/mask": 1, "spoof/print": 0.5}
    assert (result.default.bpcer.trials, list(result.default.apcer)) == (1, ["spoof/print"])
    assert result.default.acer.value == 0


def test_every_network_has_scores_of_its_own(tmp_path: Path) -> None:
    data = read_presentations(presented(tmp_path, live=["0.9", "none"], spoof=["0.25 face_too_small"]))

    first, second = assess_photos(read_liveness, data, workers=1)

    np.testing.assert_allclose(first.live_scores, [0.9, np.nan, np.nan])
    np.testing.assert_allclose(second.live_scores, [0.1, np.nan, np.nan])
    assert first.failures == second.failures


def test_at_the_equal_error_point_both_error_rates_are_equal(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    live, attack = chance.beta(6, 2, 300), chance.beta(2, 4, 300)
    root = presented(tmp_path, live=[str(one) for one in live], spoof__print=[str(one) for one in attack])
    data = read_presentations(root)

    result = evaluate_liveness(data, assess(data), 0.9)

    equal = result.equal_error
    assert equal.apcer["spoof/print"].value == pytest.approx(equal.bpcer.value, abs=1 / 300)
    assert result.equal_error_rate == pytest.approx(equal.bpcer.value, abs=1 / 300)
    assert (result.default.threshold, result.default.bpcer.hits) == (0.9, int((live < 0.9).sum()))


@pytest.mark.parametrize(("kind", "words"), [("live", "a live face"), ("spoof", "an attack")])
def test_a_kind_without_assessed_photos_is_reported(tmp_path: Path, kind: str, words: str) -> None:
    data = read_presentations(presented(tmp_path, **{"live": ["0.9"], "spoof": ["0.1"], kind: ["none"]}))

    with pytest.raises(InvalidInputError, match=f"No photo of {words} could be judged"):
        evaluate_liveness(data, assess(data), THRESHOLD)


def test_the_interval_of_a_mean_is_narrower_than_its_parts_and_holds_it() -> None:
    chance = np.random.default_rng(1)
    true_rates = (0.1, 0.3)
    held = 0
    for _ in range(400):
        one, other = (compute_clopper_pearson_rate(int(chance.binomial(80, share)), 80) for share in true_rates)
        mean = compute_mean_rate(one, other)
        held += mean.low <= sum(true_rates) / 2 <= mean.high
        assert mean.high - mean.low < max(one.high - one.low, other.high - other.low)

    assert held / 400 > 0.93
