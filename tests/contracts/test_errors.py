"""Every kind of error has its status, its exit code and a stable code of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vultus import errors
from vultus.api.problems import STATUS_BY_KIND
from vultus.cli.failures import EXIT_CODES
from vultus.errors import ErrorKind, VultusError

if TYPE_CHECKING:
    from collections.abc import Iterator


def tree(root: type[VultusError] = VultusError) -> Iterator[type[VultusError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_every_kind_is_mapped_at_every_edge() -> None:
    assert set(STATUS_BY_KIND) == set(EXIT_CODES) == set(ErrorKind)


def test_codes_are_unique_and_stable_words() -> None:
    codes = [error.code for error in tree()]

    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawn = set(re.findall(r"\w+Error\b", errors.__doc__ or ""))

    assert drawn == {error.__name__ for error in tree() if error.__module__.startswith(errors.__name__)}
