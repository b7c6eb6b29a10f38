"""Assignment of photos to gallery and probes, on persons that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vultus.errors import InvalidInputError
from vultus.evaluation.datasets import DataSet
from vultus.evaluation.identification import search_gallery, split_gallery

PEOPLE = DataSet(Path(), ("ada", "bob", "cy", "dan"), tuple("aaabbbcd"), np.array([0, 0, 0, 1, 1, 1, 2, 3]))


def test_first_photos_are_enrolled_and_a_share_of_persons_held_out() -> None:
    parts = split_gallery(PEOPLE, enrol=2, held_out=0.5, seed=1)

    known = PEOPLE.person_indices[parts.mates[0]]
    first = 3 * known
    assert parts.mates.tolist() == [first + 2]
    assert {first, first + 1} < set(parts.enrolled.tolist())
    assert len(parts.strangers) == 4
    assert parts.distractor_count == 1


@pytest.mark.parametrize(("enrol", "held_out"), [(3, 0.5), (1, 0.0), (1, 1.0)])
def test_too_few_people_for_both_kinds_of_search_are_refused(enrol: int, held_out: float) -> None:
    with pytest.raises(InvalidInputError, match="too few"):
        split_gallery(PEOPLE, enrol=enrol, held_out=held_out, seed=0)


def test_a_gallery_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="gallery is empty"):
        search_gallery(
            np.ones((2, 1), np.float32),
            np.array([False, True]),
            np.array([0, 0]),
            enrolled=np.array([0]),
            probes=np.array([1]),
        )
