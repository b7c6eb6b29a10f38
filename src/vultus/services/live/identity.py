"""Who a track is: the mean of its vectors, held against the collection, and named once several frames agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from vultus.domain import (
    Candidate,
    Decision,
    DescribedFace,
    FloatArray,
    Liveness,
    LivenessMode,
    SearchResult,
    TrackPolicy,
    Verdict,
)
from vultus.domain.decision import decide_verdict
from vultus.services.photo_analysis import find_attack_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.domain import (
        Calibration,
        DecisionPolicy,
        Quality,
    )

FULL_SIZE_PX, FULL_SHARPNESS = 112.0, 60.0
"""Size and sharpness of a face that more of either makes no better to embed."""

BETTER_FACTOR = 1.25
"""How much better than ever a face must be seen to be embedded again."""

BETTER_INTERVAL_S = 0.5
DOUBT_INTERVAL_S = 0.1
CONTACT_INTERVAL_S = 0.5
"""Least time between embeddings of a face that is seen better and better, of one that may have been taken for another,
and of such a one while it is partly hidden."""

MAX_LIVENESS_SAMPLES = 15
"""Frames over which liveness is judged: the newest."""


def compute_weight(quality: Quality, score: float) -> float:
    """Return the weight of a face in the mean of its track, 0..1: large, sharp and frontal ones count most."""
    size = min(1.0, quality.size_px / FULL_SIZE_PX)
    sharpness = min(1.0, quality.sharpness / FULL_SHARPNESS)
    turn = math.cos(math.radians(min(90.0, abs(quality.yaw_deg)))) * math.cos(
        math.radians(min(90.0, abs(quality.pitch_deg)))
    )
    seen = 1.0 if quality.network_score is None else quality.network_score
    return max(1e-3, score * math.sqrt(size * (0.25 + 0.75 * sharpness)) * turn * seen)


@dataclass(slots=True, eq=False)
class VectorMean:
    """The mean direction of unit vectors, weighted by quality; it does not depend on their order.

    Attributes:
        count: Vectors in it.
        best_weight: The greatest weight of one.
    """

    count: int = 0
    best_weight: float = 0.0
    _sum: NDArray[np.float64] | None = None

    def add(self, vector: FloatArray, weight: float) -> None:
        """Add a (d,) unit vector."""
        weighted = vector.astype(np.float64) * weight
        self._sum = weighted if self._sum is None else self._sum + weighted
        self.count += 1
        self.best_weight = max(self.best_weight, weight)

    @property
    def direction(self) -> FloatArray | None:
        """The (d,) float32 unit vector; None without vectors."""
        if self._sum is None:
            return None
        return (self._sum / max(1e-12, float(np.linalg.norm(self._sum)))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the vectors of a track say at the moment.

    Attributes:
        decision: About their mean.
        person: Whom it names; None unless it is a match.
    """

    decision: Decision
    person: Candidate | None

    @property
    def person_id(self) -> UUID | None:
        """Id of the person named."""
        return self.person.person_id if self.person else None

    def is_same_as(self, other: Claim | None) -> bool:
        """Return whether another claim has the same verdict and person."""
        return (
            other is not None and self.decision.verdict is other.decision.verdict and self.person_id == other.person_id
        )

    def withhold(self, reason: str) -> Claim:
        """Return the claim as an ambiguous one that names nobody."""
        return Claim(replace(self.decision, verdict=Verdict.AMBIGUOUS, reasons=(reason,), band=None), None)


@dataclass(slots=True, eq=False)
class TrackIdentity:
    """What is known of one track's face.

    Attributes:
        policy: Of tracks.
        mean: Of the vectors that count.
        embeddings: Computed for it, those that do not count too.
        embedded_at: When the last one was, seconds of the frames' clock.
        liveness: Of the newest frames.
        result: Of the last search for the mean; None if it must be searched for.
        shown: What is told now; None while too few frames agree.
        face: In the last frame.
        faults: Of that face, by the collection's rule.
        has_new_evidence: Whether the face of the last frame counts.
        has_clear_view: Whether the mean is of faces that no other one hid a part of; as long as there are none, hidden
            ones count.
    """

    policy: TrackPolicy
    mean: VectorMean = field(default_factory=VectorMean)
    embeddings: int = 0
    embedded_at: float = -math.inf
    liveness: list[Liveness] = field(default_factory=list)
    result: SearchResult | None = None
    shown: Claim | None = None
    face: DescribedFace | None = None
    faults: tuple[str, ...] = ()
    has_new_evidence: bool = False
    has_clear_view: bool = False
    _claim: Claim | None = None
    _agreeing: int = 0
    _agreeing_since: float = 0.0
    _last_name: UUID | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether the face may not be embedded again."""
        return self.embeddings >= self.policy.max_embeddings

    @property
    def median_liveness(self) -> Liveness | None:
        """That of the frame in the middle by score: of those that could be judged, once as many could as must agree.

        Until then, of those that could not, if there are any: one lucky frame must not speak for a track.
        """
        counted = [one for one in self.liveness if one.is_conclusive]
        if len(counted) < self.policy.agreeing_frames:
            counted = [one for one in self.liveness if not one.is_conclusive] or counted
        ordered = sorted(counted, key=lambda one: one.score)
        return ordered[(len(ordered) - 1) // 2] if ordered else None

    def needs_embedding(self, at: float, *, is_doubted: bool, is_in_contact: bool) -> bool:
        """Return whether the face should be embedded in a frame: it is new, unsure, in doubt, or clearly better seen.

        Args:
            at: When the frame is taken.
            is_doubted: Whether another face may have taken its place.
            is_in_contact: Whether another face is expected to hide part of it.
        """
        if self.is_exhausted or self.faults:
            return False
        waited = at - self.embedded_at
        if is_in_contact:
            return (is_doubted or not self.has_clear_view) and waited >= CONTACT_INTERVAL_S
        if is_doubted:
            return waited >= DOUBT_INTERVAL_S
        if not self._find_agreement(at):
            # So spread that the frames that agree are as far apart as they must be.
            return waited >= self.policy.agreeing_s / max(1, self.policy.agreeing_frames - 1) - 1e-3
        if self.face is not None and waited >= BETTER_INTERVAL_S:
            weight = compute_weight(self.face.quality, self.face.face.score)
            if weight >= BETTER_FACTOR * self.mean.best_weight:
                return True
        extra = self.mean.count - self.policy.agreeing_frames
        return not self.is_named and waited >= BETTER_INTERVAL_S * 2 ** max(0, extra)

    def observe(
        self, face: DescribedFace, faults: tuple[str, ...], at: float, *, is_doubted: bool, is_in_contact: bool
    ) -> None:
        """Take in the face of a frame.

        Args:
            face: As it was analysed.
            faults: Why it must not be compared; empty if it may.
            at: When the frame was taken.
            is_doubted: Whether it may be another's face, which must not count.
            is_in_contact: Whether another face hides part of it.
        """
        self.face, self.faults, self.has_new_evidence = face, faults, False
        if face.liveness is not None:
            self.liveness = [*self.liveness, face.liveness][-MAX_LIVENESS_SAMPLES:]
        if face.embedding is None:
            return
        self.embeddings += 1
        self.embedded_at = at
        if not faults and not is_doubted:
            if is_in_contact and self.has_clear_view:
                return  # a part of it may be another's
            if not is_in_contact and not self.has_clear_view:
                self.mean, self.has_clear_view = VectorMean(), True
            self.mean.add(face.embedding.vector, compute_weight(face.quality, face.face.score))
            self.has_new_evidence, self.result = True, None

    def list_candidates(self) -> tuple[Candidate, ...]:
        """Return the persons that the last search found, best first."""
        return self.result.candidates if self.result else ()

    @property
    def is_named(self) -> bool:
        """Whether a person is told."""
        return self.shown is not None and self.shown.person is not None

    def forget_vectors(self) -> None:
        """Begin again: the vectors are of another embedding space."""
        self.mean, self.embeddings, self.has_clear_view = VectorMean(), 0, False

    def forget_result(self) -> None:
        """Take back the name at once, and search again: the faces or rules it rests on have changed."""
        self.result = self._claim = self.shown = None
        self._agreeing = 0

    def propose(self, policy: DecisionPolicy, calibration: Calibration, at: float) -> Claim | None:
        """Return what the vectors say, and count the frames that agree; None if nothing can be said.

        Args:
            policy: Of the collection.
            calibration: Of its embedding space.
            at: When the frame was taken.
        """
        decide = partial(decide_verdict, policy=policy, calibration=calibration)
        if self.result is None:  # no frame was good enough
            return Claim(decide([], gallery_size=0, faults=self.faults), None) if self.faults else None
        candidates, size = self.result.candidates, self.result.gallery_size
        decision = decide([one.similarity for one in candidates], gallery_size=size)
        claim = Claim(decision, candidates[0] if decision.verdict is Verdict.MATCH else None)
        if not claim.is_same_as(self._claim):
            # Without a new vector the gallery has changed, about which all frames so far agree.
            self._agreeing = 1 if self.has_new_evidence else self.mean.count
            self._agreeing_since = at if self.has_new_evidence else -math.inf
        elif self.has_new_evidence:
            self._agreeing += 1
        self._claim = claim
        if policy.liveness is LivenessMode.REQUIRED and len(self.liveness) < self.policy.agreeing_frames:
            return None
        if attack := find_attack_reason(self.median_liveness, policy.liveness):
            return Claim(decide([], gallery_size=size, attack_reason=attack), None)
        return claim

    def settle(self, claim: Claim | None, withheld: str | None, at: float) -> None:
        """Decide what is told of the track.

        Args:
            claim: What the vectors say.
            withheld: Why nobody may be named in this frame; None if somebody may.
            at: When the frame was taken.
        """
        before, self.shown = self.shown, None
        if claim is None:
            return
        if claim.decision.verdict in {Verdict.LOW_QUALITY, Verdict.NOT_LIVE}:
            self.shown = claim
            return
        if not self._find_agreement(at):
            if self._last_name is not None or self.is_exhausted:
                self.shown = claim.withhold("frames_disagree")
            return
        if claim.person is None:
            self.shown = claim
        elif withheld is not None:
            self.shown = claim.withhold(withheld)
        elif self._last_name not in {None, claim.person_id} and not _is_ambiguous(before):
            self.shown = claim.withhold("frames_disagree")
        else:
            self.shown, self._last_name = claim, claim.person_id

    def _find_agreement(self, at: float) -> bool:
        """Return whether enough frames agree about who it is, or is not, over a long enough time."""
        is_long_enough = at - self._agreeing_since >= self.policy.agreeing_s - 1e-3
        return self._claim is not None and self._agreeing >= self.policy.agreeing_frames and is_long_enough


def _is_ambiguous(claim: Claim | None) -> bool:
    return claim is not None and claim.decision.verdict is Verdict.AMBIGUOUS


def find_rivals(claims: Iterable[tuple[TrackIdentity, Claim | None]], margin: float) -> set[int]:
    """Return the ids (`id`) of the identities that must not name a person, because another track does.

    Of several that claim one person, the one that is named already keeps it, unless another is more similar by the
    margin; without one, the most similar has it.

    Args:
        claims: Each track in the frame with what its vectors say.
        margin: Cosine.
    """
    holders: dict[UUID, list[tuple[float, TrackIdentity]]] = {}
    for identity, claim in claims:
        if claim is not None and claim.person is not None:
            is_shown = identity.shown is not None and identity.shown.person_id == claim.person_id
            strength = claim.person.similarity + (margin if is_shown else 0.0)
            holders.setdefault(claim.person.person_id, []).append((strength, identity))
    rivals: set[int] = set()
    for contenders in holders.values():
        contenders.sort(key=lambda one: -one[0])
        rivals.update(id(identity) for _, identity in contenders[1:])
    return rivals
