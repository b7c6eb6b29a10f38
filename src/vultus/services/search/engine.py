"""The port to what proposes candidates: an index in this process, one split over several, or a vector engine elsewhere.

Messages are values and arrays, and no answer depends on an earlier call. An engine may be late, lose faces or propose
erased ones: PostgreSQL rescores what it proposes, leaves out what is gone and adds what is newer than its watermark,
and the recall monitor measures what it loses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import FloatArray, NumberArray

IndexKey = tuple[UUID, str]
"""Id of a collection, and the embedding space of the templates."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """What an engine holds of a collection.

    Attributes:
        last_number: Every template up to this number is held, or erased.
        faces: Number of templates held; erased ones may still be among them.
    """

    last_number: int
    faces: int


class SimilarityFloor(NamedTuple):
    """A cosine above which templates are proposed.

    Attributes:
        cosine: The cosine.
        risk: Accepted probability that a template with exactly this cosine is missed; for closer ones it is lower.
        max_candidates: The floor is left out if it would propose more templates.
    """

    cosine: float
    risk: float
    max_candidates: float = math.inf


class CandidateEngine(Protocol):
    """Proposes templates by number. Every method returns None if the engine does not hold the collection (any more).

    A search asks for the watermark first: what an engine holds then, or more, must be in its later answers. It ends
    with `end_search`, however it ends.
    """

    async def watermark(self, key: IndexKey) -> Watermark | None:
        """Return what is held of a collection."""
        ...

    async def nearest(self, key: IndexKey, probes: FloatArray, count: int) -> Sequence[NumberArray] | None:
        """Return the (m,) numbers of about `count` nearest templates, in any order, for each of (k, d) probes."""
        ...

    async def above(
        self,
        key: IndexKey,
        probes: FloatArray,
        floors: Sequence[Sequence[SimilarityFloor]],
        exclude: Sequence[NumberArray],
    ) -> Sequence[NumberArray] | None:
        """Return the (m,) numbers of all templates that may reach a floor of their probe, in any order.

        Args:
            key: The collection and embedding space.
            probes: (k, d) float32, each row of length 1.
            floors: One or more per probe.
            exclude: Numbers not to be proposed, nor to be counted by a floor, one array per probe.
        """
        ...

    def end_search(self, key: IndexKey, probes: FloatArray) -> None:
        """Release what is kept for a search between its calls; it makes no further one."""
        ...
