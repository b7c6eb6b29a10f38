"""Data sets on disk: one folder per person, and LFW's list of pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.statistics.metrics import Flags, Indices

if TYPE_CHECKING:
    from collections.abc import Iterator


PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp"}


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Photos of known persons.

    Attributes:
        root: The folder that holds one folder per person.
        persons: Names of the folders, sorted.
        photos: Paths relative to the root with forward slashes, sorted by person, then by file.
        person_indices: (photos,) position of each photo's person in `persons`; non-decreasing.
    """

    root: Path
    persons: tuple[str, ...]
    photos: tuple[str, ...]
    person_indices: Indices

    @property
    def photo_counts(self) -> Indices:
        """(persons,) photos of each person."""
        return np.bincount(self.person_indices, minlength=len(self.persons)).astype(np.int64)

    def select_photos(self, positions: Indices) -> DataSet:
        """Return the data set with the photos at the given ascending positions; person indices stay unchanged."""
        return replace(
            self, photos=tuple(self.photos[at] for at in positions), person_indices=self.person_indices[positions]
        )


@dataclass(frozen=True, slots=True, eq=False)
class ListedPairs:
    """Listed comparisons.

    Attributes:
        first: (pairs,) position of a photo in the data set.
        second: (pairs,) position of the photo it is compared with.
        same_person: (pairs,) whether both show one person.
        fold: (pairs,) part of the cross-validation the pair belongs to, from 0.
    """

    first: Indices
    second: Indices
    same_person: Flags
    fold: Indices

    @property
    def photo_positions(self) -> Indices:
        """Positions of the photos that occur, ascending."""
        return np.unique(np.concatenate((self.first, self.second)))

    def convert_positions(self, kept_positions: Indices) -> ListedPairs:
        """Return the pairs with positions in `DataSet.select_photos(kept_positions)`, which has every listed photo."""
        return replace(
            self, first=np.searchsorted(kept_positions, self.first), second=np.searchsorted(kept_positions, self.second)
        )


def read_person_folders(root: Path) -> DataSet:
    """List the photos of a folder that holds one folder per person.

    Raises:
        InvalidInputError: No folder in it holds a photo.
    """
    found = [
        (folder.name, names)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and (names := _list_photo_names(folder))
    ]
    if not found:
        raise InvalidInputError(f"{root} holds no folder with photos; expected {root / 'PERSON' / 'PHOTO.jpg'}.")
    return DataSet(
        root=root,
        persons=tuple(name for name, _ in found),
        photos=tuple(f"{person}/{name}" for person, names in found for name in names),
        person_indices=np.repeat(np.arange(len(found)), [len(names) for _, names in found]),
    )


def list_photos(folder: Path, recursive: bool = False) -> list[Path]:
    """Return the photos in a folder, if `recursive` also in its subfolders, sorted; none if it does not exist."""
    return sorted(path for path in folder.glob("**/*" if recursive else "*") if path.suffix.lower() in PHOTO_SUFFIXES)


def _list_photo_names(folder: Path) -> list[str]:
    return [path.name for path in list_photos(folder)]


def read_pairs(path: Path, data: DataSet) -> ListedPairs:
    r"""Read a list of pairs in LFW's format (Huang et al. 2007, "Labeled Faces in the Wild", view 2).

    The first line is `folds TAB n`; each fold then has n lines `name i j` (one person) followed by n lines
    `name1 i name2 j` (two persons). Photo i of a person is `name/name_000i.jpg`, counted from 1.

    Raises:
        InvalidInputError: A line does not follow the format or names a photo that the data set lacks; the detail names
            the line.
    """
    lines = [(number, line.split()) for number, line in enumerate(read_text_file(path).splitlines(), 1) if line.strip()]
    folds, pairs_per_kind = _parse_header(path, lines[0][1] if lines else [])
    rows = lines[1:]
    if len(rows) != folds * pairs_per_kind * 2:
        raise InvalidInputError(
            f"{path}: the first line announces {folds} folds of 2 × {pairs_per_kind} pairs, "
            f"{folds * pairs_per_kind * 2} in all, but {len(rows)} follow."
        )
    positions = {photo.rsplit(".", 1)[0]: at for at, photo in enumerate(data.photos)}
    found = []
    for at, (number, fields) in enumerate(rows):
        photos = list(_parse_photo_names(path, number, fields))
        if missing := [photo for photo in photos if photo not in positions]:
            raise InvalidInputError(f"{path}, line {number}: {data.root / missing[0]}.jpg does not exist.")
        expected = at % (2 * pairs_per_kind) < pairs_per_kind
        if (len(fields) == 3) != expected:
            raise InvalidInputError(
                f"{path}, line {number}: expected {'one person' if expected else 'two persons'}; each fold lists "
                f"{pairs_per_kind} pairs of one person, then {pairs_per_kind} of two."
            )
        found.append((positions[photos[0]], positions[photos[1]], expected, at // (2 * pairs_per_kind)))
    table = np.array(found, dtype=np.int64)
    return ListedPairs(first=table[:, 0], second=table[:, 1], same_person=table[:, 2].astype(bool), fold=table[:, 3])


def read_text_file(path: Path) -> str:
    """Read a text in UTF-8.

    Raises:
        InvalidInputError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error


def _parse_header(path: Path, fields: list[str]) -> tuple[int, int]:
    if len(fields) == 2 and all(field.isdecimal() for field in fields):
        folds, pairs_per_kind = map(int, fields)
        if folds >= 2 and pairs_per_kind >= 1:
            return folds, pairs_per_kind
    raise InvalidInputError(
        f"{path}, line 1: expected two numbers, at least 2 folds and the pairs of one person in each, "
        f"as in '10 300'; found '{' '.join(fields)}'."
    )


def _parse_photo_names(path: Path, number: int, fields: list[str]) -> Iterator[str]:
    """Yield the two photos of a line, without suffix."""
    three = len(fields) == 3
    indices = fields[1:3] if three else fields[1:4:2]
    if len(fields) not in {3, 4} or not all(index.isdecimal() for index in indices):
        raise InvalidInputError(
            f"{path}, line {number}: expected 'name i j' or 'name1 i name2 j'; found '{' '.join(fields)}'."
        )
    names = [fields[0]] * 2 if three else fields[0:4:2]
    for name, index in zip(names, indices, strict=True):
        yield f"{name}/{name}_{int(index):04d}"
