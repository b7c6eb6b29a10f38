"""Demographic labels of a data set, in a CSV file with one line per person or per photo."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.errors import InvalidInputError
from vultus.evaluation.datasets import read_text_file
from vultus.statistics.matched import UNKNOWN_AGE, Demographics, ensure_matched_adults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vultus.evaluation.datasets import DataSet

PERSON, PHOTO = "person", "path"

Labels = dict[str, tuple[str | None, ...]]
"""For each column the label of every person or photo of a data set, in their order; None without one."""


@dataclass(frozen=True, slots=True)
class _LabelTable:
    """The lines of a file: what they label (persons or photos), the columns, and the labels by name."""

    key: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]


def read_groups(path: Path, data: DataSet) -> Labels:
    """Read group labels per person from a CSV file whose first line is `person,COLUMN,…` or `path,COLUMN,…`.

    Returns:
        For each column the group of every person of the data set, in their order; None for an empty cell, no line, or
        photos with different labels.

    Raises:
        InvalidInputError: The heading, the number of fields, a person, a photo or a column cannot be used; the detail
            names the line.
    """
    table = _read_table(path, data)
    if table.key == PERSON:
        return _select_labels(table, data.persons)
    by_photo = _select_labels(table, data.photos)
    found = {}
    for column, labels in by_photo.items():
        groups: list[set[str | None]] = [set() for _ in data.persons]
        for person, label in zip(data.person_indices, labels, strict=True):
            groups[person].add(label)
        found[column] = tuple(next(iter(group)) if len(group) == 1 else None for group in groups)
    return found


def read_photo_labels(path: Path, data: DataSet) -> Labels:
    """Read labels per photo from such a file; those of a person hold for all of the person's photos.

    Raises:
        InvalidInputError: As for `read_groups`.
    """
    table = _read_table(path, data)
    names = data.photos if table.key == PHOTO else [data.persons[person] for person in data.person_indices]
    return _select_labels(table, names)


def read_demographics(path: Path, data: DataSet) -> Demographics:
    """Read age in years, sex and, if there is such a column, race of the person in each photo.

    Raises:
        InvalidInputError: As for `read_groups`; also without a column `age` or `sex`, if an age is no whole number, or
            without two adults of one sex and one age band.
    """
    labels = read_photo_labels(path, data)
    if missing := {"age", "sex"} - labels.keys():
        raise InvalidInputError(
            f"{path}, line 1: expected the columns age, sex and perhaps race; missing: {' and '.join(sorted(missing))}."
        )
    for photo, age in zip(data.photos, labels["age"], strict=True):
        if age is not None and not age.isdecimal():
            raise InvalidInputError(f"{path}: the age of '{photo}' must be a whole number of years; found '{age}'.")
    found = Demographics(
        age=np.array([UNKNOWN_AGE if age is None else int(age) for age in labels["age"]], np.int64),
        sex=labels["sex"],
        race=labels.get("race", (None,) * len(data.photos)),
    )
    ensure_matched_adults(data.person_indices, found)  # before networks run for an hour
    return found


def _select_labels(table: _LabelTable, names: tuple[str, ...] | list[str]) -> Labels:
    nothing = ("",) * len(table.columns)
    return {
        column: tuple(table.rows.get(name, nothing)[at] or None for name in names)
        for at, column in enumerate(table.columns)
    }


def _read_table(path: Path, data: DataSet) -> _LabelTable:
    lines = list(csv.reader(read_text_file(path).lstrip("\ufeff").splitlines()))
    heading = [field.strip() for field in lines[0]] if lines else []
    columns = heading[1:]
    if heading[:1] not in ([PERSON], [PHOTO]) or not columns or "" in columns or len({*columns}) < len(columns):
        raise InvalidInputError(
            f"{path}, line 1: expected 'person' or 'path' and the names of one or more groupings, each once, as in "
            f"'person,age'; found '{','.join(heading)}'."
        )
    known = set(data.persons if heading[0] == PERSON else data.photos)
    rows: dict[str, tuple[str, ...]] = {}
    for number, name, labels in _parse_lines(path, lines, len(heading)):
        if name not in known or name in rows:
            missing = f"has no folder in {data.root}" if heading[0] == PERSON else f"is not in {data.root}"
            kind = "person" if heading[0] == PERSON else "photo"
            what = "is listed twice" if name in rows else missing
            raise InvalidInputError(f"{path}, line {number}: {kind} '{name}' {what}.")
        rows[name] = labels
    return _LabelTable(heading[0], tuple(columns), rows)


def _parse_lines(path: Path, lines: list[list[str]], width: int) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield number, name and labels of every line that is not empty."""
    for number, fields in enumerate(lines[1:], 2):
        if fields and len(fields) != width:
            raise InvalidInputError(f"{path}, line {number}: expected {width} fields; found {len(fields)}.")
        if fields:
            name, *labels = (field.strip() for field in fields)
            yield number, name, tuple(labels)
