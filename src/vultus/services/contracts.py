"""Acting on a collection that may change its network meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vultus.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.domain import Collection

TRIES = 4
"""Switches are made by people: more of them than this during one request are none."""

Result = TypeVar("Result")


class _MovedError(Exception):
    """The collection uses other contracts than the photos were described by; carries it as it is now."""

    def __init__(self, now: Collection) -> None:
        super().__init__()
        self.now = now


def check_searched(before: Collection, now: Collection) -> None:
    """Go back to the photo, in `under_contract`, if a search would compare vectors of another contract."""
    if before.contract_id != now.contract_id:
        raise _MovedError(now)


def check_written(before: Collection, now: Collection) -> None:
    """Go back to the photo, in `under_contract`, if templates of other contracts are to be written."""
    if (before.contract_id, before.second_contract_id) != (now.contract_id, now.second_contract_id):
        raise _MovedError(now)


async def under_contract(home: Collection, act: Callable[[Collection], Awaitable[Result]]) -> Result:
    """Do what needs a photo described first and a transaction afterwards, again if the contracts changed in between.

    Args:
        home: The collection as it was found.
        act: Given the collection, describes the photo by its contracts; its transaction calls one of the checks.

    Raises:
        OverloadedError: The contracts keep changing.
    """
    for _ in range(TRIES):
        try:
            return await act(home)
        except _MovedError as moved:
            home = moved.now
    raise OverloadedError(f"Collection '{home.name}' keeps changing its network; try again.")
