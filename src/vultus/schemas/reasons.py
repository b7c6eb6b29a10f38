"""Stable reason codes and names in answers: listed in the description of the API, which answers are not held to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, TypeVar

from pydantic import Field

from vultus import errors
from vultus.domain import LivenessReason, sightings
from vultus.domain.decision import QUALITY_FAULTS, VERDICT_REASONS
from vultus.domain.events import list_actions
from vultus.domain.tracks import TRACK_REASONS

Root = TypeVar("Root")

ATTACKS = tuple(reason.value for reason in LivenessReason if reason is not LivenessReason.LIVE)


def list_subclasses(root: type[Root]) -> Iterator[type[Root]]:
    """Yield a class and all classes derived from it."""
    yield root
    for child in root.__subclasses__():
        yield from list_subclasses(child)


def _list_codes(names: Iterable[str]) -> dict[str, list[str]]:
    return {"enum": sorted(set(names))}


DecisionReason = Annotated[
    str, Field(json_schema_extra=_list_codes((*VERDICT_REASONS, *TRACK_REASONS, *QUALITY_FAULTS, *ATTACKS)))
]
RejectionReason = Annotated[
    str,
    Field(
        json_schema_extra=_list_codes(
            (
                *("not_live", "enrolled_as_other_person", "duplicate_photo"),
                *QUALITY_FAULTS,
                *ATTACKS,
                *(
                    error.code
                    for root in (errors.ImageError, errors.UnsupportedImageError, errors.ImageTooLargeError)
                    for error in list_subclasses(root)
                ),
                errors.NoFaceFoundError.code,
                errors.SeveralFacesError.code,
            )
        )
    ),
]
AUDIT_ACTIONS = frozenset(list_actions())
EVENT_TYPES = AUDIT_ACTIONS | sightings.ACTIONS
EventType = Annotated[str, Field(json_schema_extra=_list_codes(EVENT_TYPES))]
AuditAction = Annotated[str, Field(json_schema_extra=_list_codes(AUDIT_ACTIONS))]
