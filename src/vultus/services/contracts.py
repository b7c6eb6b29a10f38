"""Acting on a collection that may change its network, or ask for more than a photo was looked at for, meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vultus.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.domain import Collection, LivenessMode

TRIES = 4
"""Changes are made by people: more of them than this during one request are none."""

Result = TypeVar("Result")


class _MovedError(Exception):
    """The collection asks for more than the photos were described for; carries it as it is now."""

    def __init__(self, now: Collection) -> None:
        super().__init__()
        self.now = now


def check_searched(before: Collection, now: Collection, liveness: LivenessMode) -> None:
    """Go back to the photo, in `under_contract`, if a search would compare vectors of another contract.

    Likewise if the policy asks for more by now than the mode of liveness the photo was looked at with.
    """
    if before.contract_id != now.contract_id or liveness.at_least(now.policy.liveness) is not liveness:
        raise _MovedError(now)


def check_written(before: Collection, now: Collection, liveness: LivenessMode) -> None:
    """Go back to the photo, in `under_contract`, if templates of other contracts, or crops, are to be written.

    Likewise in the cases of `check_searched`.
    """
    check_searched(before, now, liveness)
    crops_wanted = now.policy.keep_crops and not before.policy.keep_crops
    if before.second_contract_id != now.second_contract_id or crops_wanted:
        raise _MovedError(now)


async def under_contract(home: Collection, act: Callable[[Collection], Awaitable[Result]]) -> Result:
    """Do what needs a photo described first and a transaction afterwards, again if one of the checks says so.

    Args:
        home: The collection as it was found.
        act: Given the collection, describes the photo by its contracts; its transaction calls one of the checks.

    Raises:
        OverloadedError: The collection keeps changing.
    """
    for _ in range(TRIES):
        try:
            return await act(home)
        except _MovedError as moved:
            home = moved.now
    raise OverloadedError(f"Collection '{home.name}' keeps changing; try again.")
