"""Labels are read per person or per photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vultus.errors import InvalidInputError
from vultus.evaluation.datasets import DataSet
from vultus.evaluation.labels import read_groups, read_photo_labels

PHOTOS = ("ada/1.jpg", "ada/2.jpg", "bob/1.jpg", "cy/1.jpg")
DATA = DataSet(Path("people"), ("ada", "bob", "cy"), PHOTOS, np.array([0, 0, 1, 2]))


def write(folder: Path, *lines: str) -> Path:
    path = folder / "groups.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_persons_label_holds_for_all_photos(tmp_path: Path) -> None:
    path = write(tmp_path, "person,sex", "ada,female", "bob,male")

    assert read_photo_labels(path, DATA) == {"sex": ("female", "female", "male", None)}
    assert read_groups(path, DATA) == {"sex": ("female", "male", None)}


def test_photos_have_labels_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, "path,age,sex", "ada/1.jpg,17,female", "ada/2.jpg,30,female", "bob/1.jpg,40,")

    assert read_photo_labels(path, DATA) == {
        "age": ("17", "30", "40", None),
        "sex": ("female", "female", None, None),
    }


def test_a_person_whose_photos_differ_has_no_group(tmp_path: Path) -> None:
    path = write(tmp_path, "path,age,sex", "ada/1.jpg,17,female", "ada/2.jpg,30,female", "bob/1.jpg,40,male")

    assert read_groups(path, DATA) == {"age": (None, "40", None), "sex": ("female", "male", None)}


@pytest.mark.parametrize(
    ("line", "words"),
    [("ada/3.jpg,1", "line 3: photo 'ada/3.jpg' is not in people"), ("ada/1.jpg,2", "'ada/1.jpg' is listed twice")],
)
def test_a_photo_that_is_unknown_or_repeated_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        read_groups(write(tmp_path, "path,age", "ada/1.jpg,1", line), DATA)
