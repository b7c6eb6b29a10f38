"""Where two contracts disagree: enrolled faces searched for under each, and recognitions answered by both."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import ShadowDisagreement, Verdict
from vultus.domain.decision import decide
from vultus.services.collections import calibration_of, find_collection
from vultus.services.migration.migration import under_way
from vultus.services.migration.policy_translation import policy_under

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, DecisionPolicy, LeftOut
    from vultus.models.pipelines import Pipelines

BATCH = 20
"""Faces searched for in one statement."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a contract says about a face.

    Attributes:
        person_id: The closest person's.
        similarity: Of their closest face; None in a gallery without other faces.
        threshold: Cosine needed.
        right: Whether it is the truth: the face's own person if they have another face, else nobody.
    """

    verdict: Verdict
    person_id: UUID | None
    similarity: float | None
    threshold: float
    right: bool

    def agrees(self, other: Opinion) -> bool:
        """Say whether both come to the same: the same verdict and, where it names somebody, the same person."""
        named = self.verdict in (Verdict.MATCH, Verdict.AMBIGUOUS)
        return self.verdict is other.verdict and (not named or self.person_id == other.person_id)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A face about which the contracts disagree; `kind` is `other_person` or the two verdicts, the active one first."""

    face_id: UUID
    person_id: UUID
    kind: str
    active: Opinion
    second: Opinion


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Recognitions answered by both contracts so far, and the latest that differed."""

    share: float
    compared: int
    agreed: int
    disagreements: tuple[ShadowDisagreement, ...]


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """Faces searched for among all others under both contracts.

    Attributes:
        compared: Faces searched for.
        agreed: Of these, same verdict and same person.
        kinds: Disagreements by kind.
        active_wrong: Faces about which the contract that is searched is wrong.
        second_wrong: Faces about which the other one is.
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


def kind_of(active: Verdict, second: Verdict) -> str:
    """Name a disagreement."""
    return "other_person" if active is second else f"{active}_{second}"


class Comparer:
    """Compares the two contracts of a collection."""

    def __init__(self, database: Database, pipelines: Pipelines) -> None:
        self._database = database
        self._pipelines = pipelines

    async def compare(self, reference: str, sample: int) -> ComparisonReport:
        """Search for up to `sample` faces that have both templates, each left out of the gallery.

        Raises:
            NotFoundError: The collection does not exist, or is not changing its network.
        """
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, reference)
            transition, second = await under_way(work, home)
            compared, agreed, latest = await work.comparisons.shadow(home.id)
            faces = await work.comparisons.sample(home.id, sample)
            sizes = {one: await work.faces.count(home.id, one) for one in (home.contract_id, second)}
        homes = {
            home.contract_id: home,
            second: replace(home, policy=policy_under(home, second, self._pipelines)),
        }
        pairs: list[tuple[LeftOut, Opinion, Opinion]] = []
        for start in range(0, len(faces), BATCH):
            part = faces[start : start + BATCH]
            async with self._database.work(read_only=True) as work:
                ours, theirs = [
                    await work.comparisons.closest_others(home.id, one, part) for one in (home.contract_id, second)
                ]
            pairs += [
                (
                    ours[face],
                    self._opinion(homes[home.contract_id], home.contract_id, ours[face], sizes[home.contract_id]),
                    self._opinion(homes[second], second, theirs[face], sizes[second]),
                )
                for face in part
                if face in ours and face in theirs  # unless erased meanwhile
            ]
        differing = tuple(
            Disagreement(face.face_id, face.person_id, kind_of(active.verdict, other.verdict), active, other)
            for face, active, other in pairs
            if not active.agrees(other)
        )
        return ComparisonReport(
            home.contract_id,
            second,
            len(pairs),
            len(pairs) - len(differing),
            dict(Counter(one.kind for one in differing)),
            sum(not active.right for _, active, _ in pairs),
            sum(not other.right for _, _, other in pairs),
            differing,
            ShadowReport(transition.shadow_share, compared, agreed, latest),
        )

    def _opinion(self, home: Collection, contract_id: str, face: LeftOut, gallery_size: int) -> Opinion:
        policy: DecisionPolicy = home.policy
        decision = decide(
            [similarity for _, similarity in face.candidates],
            policy=policy,
            calibration=calibration_of(home, self._pipelines.of(contract_id)),
            gallery_size=gallery_size - 1,
        )
        person, similarity = face.candidates[0] if face.candidates else (None, None)
        named = decision.verdict is Verdict.MATCH
        right = (named and person == face.person_id) if face.has_mate else not named
        return Opinion(decision.verdict, person, similarity, decision.threshold, right)
