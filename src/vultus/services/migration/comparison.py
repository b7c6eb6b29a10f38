"""Comparison of the two embedding spaces of a migration: leave-one-out searches and shadow recognitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Permission, ShadowDisagreement, Verdict
from vultus.domain.decision import decide_verdict
from vultus.services.collections import get_calibration
from vultus.services.migration.migration import get_active_migration
from vultus.services.migration.policy_translation import convert_policy

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, DecisionPolicy, LeaveOneOutResult, Principal, SpaceRegistry

BATCH_SIZE = 20
"""Faces searched for per statement."""


@dataclass(frozen=True, slots=True)
class SpaceDecision:
    """The decision about a face in one embedding space.

    Attributes:
        verdict: The verdict on the nearest person.
        person_id: Id of the nearest person; None in a gallery without other faces.
        similarity: Cosine of their nearest face; None likewise.
        threshold: Cosine from which a person matches.
        right: Whether it is correct: a match with the face's person if they have another face, else no match.
    """

    verdict: Verdict
    person_id: UUID | None
    similarity: float | None
    threshold: float
    right: bool

    def agrees_with(self, other: SpaceDecision) -> bool:
        """Return whether both have the same verdict and, if it names a person, the same person."""
        named = self.verdict in (Verdict.MATCH, Verdict.AMBIGUOUS)
        return self.verdict is other.verdict and (not named or self.person_id == other.person_id)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A face whose decisions differ; `kind` is `other_person` or the two verdicts, that of the active space first."""

    face_id: UUID
    person_id: UUID
    kind: str
    active: SpaceDecision
    second: SpaceDecision


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Counts of the recognitions compared in both embedding spaces so far, and the latest that differed."""

    share: float
    compared: int
    agreed: int
    disagreements: tuple[ShadowDisagreement, ...]


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """Result of leave-one-out searches in both embedding spaces.

    Attributes:
        compared: Faces searched for.
        agreed: Of these, those with the same verdict and the same person.
        kinds: Number of disagreements by kind.
        active_wrong: Faces decided wrongly in the active space.
        second_wrong: Faces decided wrongly in the second space.
    """

    active_contract_id: str
    second_contract_id: str
    compared: int
    agreed: int
    kinds: dict[str, int]
    active_wrong: int
    second_wrong: int
    disagreements: tuple[Disagreement, ...]
    shadow: ShadowReport


def get_disagreement_kind(active: Verdict, second: Verdict) -> str:
    """Return the kind of a disagreement; see `Disagreement`."""
    return "other_person" if active is second else f"{active}_{second}"


class SpaceComparer:
    """Compares the two embedding spaces of a collection."""

    def __init__(self, database: Database, spaces: SpaceRegistry) -> None:
        self._database = database
        self._spaces = spaces

    async def compare(self, principal: Principal, reference: str, sample: int) -> ComparisonReport:
        """Search for up to `sample` faces that have both templates, each left out of the gallery.

        Raises:
            ForbiddenError: The caller may not configure, or not see the scores that the report contains.
            NotFoundError: The collection does not exist or has no active migration.
        """
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            principal.require(Permission.SCORES)
            migration, second = await get_active_migration(work, collection)
            compared, agreed, latest = await work.comparisons.get_shadow_statistics(collection.id)
            faces = await work.comparisons.sample(collection.id, sample)
            sizes = {
                one: await work.templates.count_templates(collection.id, one) for one in (collection.space_id, second)
            }
        collections_by_space = {
            collection.space_id: collection,
            second: replace(collection, policy=convert_policy(collection, second, self._spaces)),
        }
        pairs: list[tuple[LeaveOneOutResult, SpaceDecision, SpaceDecision]] = []
        for start in range(0, len(faces), BATCH_SIZE):
            part = faces[start : start + BATCH_SIZE]
            async with self._database.transaction(read_only=True) as work:
                active_results, second_results = [
                    await work.templates.search_leave_one_out(collection.id, one, part)
                    for one in (collection.space_id, second)
                ]
            pairs += [
                (
                    active_results[face],
                    self._build_decision(
                        collections_by_space[collection.space_id],
                        collection.space_id,
                        active_results[face],
                        sizes[collection.space_id],
                    ),
                    self._build_decision(collections_by_space[second], second, second_results[face], sizes[second]),
                )
                for face in part
                if face in active_results and face in second_results  # unless erased meanwhile
            ]
        differing = tuple(
            Disagreement(
                face.face_id, face.person_id, get_disagreement_kind(active.verdict, other.verdict), active, other
            )
            for face, active, other in pairs
            if not active.agrees_with(other)
        )
        return ComparisonReport(
            collection.space_id,
            second,
            len(pairs),
            len(pairs) - len(differing),
            dict(Counter(one.kind for one in differing)),
            sum(not active.right for _, active, _ in pairs),
            sum(not other.right for _, _, other in pairs),
            differing,
            ShadowReport(migration.shadow_share, compared, agreed, latest),
        )

    def _build_decision(
        self, collection: Collection, space_id: str, face: LeaveOneOutResult, gallery_size: int
    ) -> SpaceDecision:
        policy: DecisionPolicy = collection.policy
        decision = decide_verdict(
            [similarity for _, similarity in face.candidates],
            policy=policy,
            calibration=get_calibration(collection, self._spaces.get_space(space_id)),
            gallery_size=gallery_size - 1,
        )
        person, similarity = face.candidates[0] if face.candidates else (None, None)
        named = decision.verdict is Verdict.MATCH
        right = (named and person == face.person_id) if face.has_mate else not named
        return SpaceDecision(decision.verdict, person, similarity, decision.threshold, right)
