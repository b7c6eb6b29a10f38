"""Folders become photos and persons; a list of pairs is read or its faulty line named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vultus.errors import InvalidInputError
from vultus.evaluation.datasets import DataSet, ListedPairs, read_pairs, read_person_folders

LIST = "2\t1\nada 1 2\nada 1 bob 1\nbob 1 2\nbob 2 cy 1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("bob/bob_0002.jpg", "bob/bob_0001.JPG", "ada/ada_0001.png", "ada/ada_0002.jpg", "cy/cy_0001.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "bob/notes.txt").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def listed(root: Path, text: str) -> ListedPairs:
    path = root / "pairs.txt"
    path.write_text(text)
    return read_pairs(path, read_person_folders(root))


def test_photos_are_sorted_by_person(root: Path) -> None:
    data = read_person_folders(root)

    assert data.persons == ("ada", "bob", "cy")
    assert data.photos == (
        "ada/ada_0001.png",
        "ada/ada_0002.jpg",
        "bob/bob_0001.JPG",
        "bob/bob_0002.jpg",
        "cy/cy_0001.webp",
    )
    assert data.person_indices.tolist() == [0, 0, 1, 1, 2]
    assert data.photo_counts.tolist() == [2, 2, 1]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no folder with photos"):
        read_person_folders(tmp_path)


def test_lines_become_pairs_of_folds(root: Path) -> None:
    pairs = listed(root, LIST)

    assert pairs.first.tolist() == [0, 0, 2, 3]
    assert pairs.second.tolist() == [1, 2, 3, 4]
    assert pairs.same_person.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]


def test_blank_lines_do_not_count(root: Path) -> None:
    assert len(listed(root, LIST.replace("\n", "\n\n")).first) == 4


def test_a_part_of_a_data_set_keeps_its_pairs(root: Path) -> None:
    data, pairs = read_person_folders(root), listed(root, LIST)
    keep = np.array([0, 1, 2, 3, 4])[1:]
    pairs = ListedPairs(pairs.first[2:], pairs.second[2:], pairs.same_person[2:], pairs.fold[2:])

    part: DataSet = data.select_photos(keep)
    moved = pairs.convert_positions(keep)

    assert [part.photos[at] for at in moved.first] == [data.photos[at] for at in pairs.first]
    assert [part.photos[at] for at in moved.second] == [data.photos[at] for at in pairs.second]
    assert part.photo_counts.tolist() == [1, 2, 1]
    assert pairs.photo_positions.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: expected two numbers"),
        ("300\n", "line 1: expected two numbers.*found '300'"),
        ("1\t300\n", "at least 2 folds"),
        ("ten\t300\n", "line 1"),
        (LIST + "ada 1 2\n", "announces 2 folds of 2 × 1 pairs, 4 in all, but 5 follow"),
        (LIST.replace("ada 1 2", "ada 1"), "line 2: expected 'name i j' or"),
        (LIST.replace("ada 1 2", "ada 1 bob 2 3"), "line 2: expected 'name i j' or"),
        (LIST.replace("ada 1 2", "ada one 2"), "line 2: expected 'name i j' or"),
        (LIST.replace("ada 1 2", "ada 1 9"), "line 2: .*ada_0009.jpg does not exist"),
        (LIST.replace("bob 2 cy 1", "bob 2 cy 7"), "line 5: .*cy_0007.jpg does not exist"),
        (LIST.replace("ada 1 2", "ada 1 bob 2"), "line 2: expected one person"),
        (LIST.replace("ada 1 bob 1", "ada 1 2"), "line 3: expected two persons"),
    ],
)
def test_a_faulty_list_names_its_line(root: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        listed(root, text)


def test_a_list_that_cannot_be_read_is_refused(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_pairs(root / "missing.txt", read_person_folders(root))
