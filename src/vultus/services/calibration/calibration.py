"""Calibration of a collection in operation on the faces enrolled in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from vultus.domain import Calibration, Collection, DecisionPolicy, FloatArray, LoadedSpace, Permission, Principal
from vultus.domain.decision import Threshold, compute_threshold
from vultus.errors import InvalidInputError
from vultus.services.calibration.curves import CurvePoint, build_stated_curve
from vultus.services.calibration.thresholds import MAX_FMR, GalleryMeasurement, measure_gallery
from vultus.services.collections import CollectionService, get_calibration
from vultus.statistics.groups import GroupsResult, evaluate_groups
from vultus.statistics.metrics import RESOLVED_ERRORS, Indices

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import IdempotencyContext, SpaceRegistry

DEFAULT_SAMPLE = 5_000
MIN_SAMPLE, MAX_SAMPLE = 100, 20_000


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """Parameters of a calibration.

    Attributes:
        target_fmr: False match rate of one comparison to propose a threshold for.
        target_fpir: False positive identification rate of a search, instead; with neither, the policy's target.
        apply: Store the calibration and the target, if given.
        sample: Maximum number of faces compared; from a larger gallery, persons are drawn up to this many faces.
        seed: Seed of the draw.
        group_by: Metadata key to report error rates by.
    """

    target_fmr: float | None = None
    target_fpir: float | None = None
    apply: bool = False
    sample: int = DEFAULT_SAMPLE
    seed: int = 0
    group_by: str | None = None

    def build_policy(self, current: DecisionPolicy) -> DecisionPolicy:
        """Return the collection's policy with the requested target.

        Raises:
            InvalidInputError: Both targets are given.
        """
        if self.target_fmr is None and self.target_fpir is None:
            return current
        if self.target_fmr is not None and self.target_fpir is not None:
            raise InvalidInputError("Give either target_fmr or target_fpir, not both.")
        if self.target_fmr is not None:  # as comparisons use it, and searches without a target of their own
            return replace(current, threshold=None, target_fmr=self.target_fmr, target_fpir=None)
        return replace(current, threshold=None, target_fpir=self.target_fpir)


@dataclass(frozen=True, slots=True)
class SuspiciousPair:
    """Two persons so similar that they may be one, enrolled twice.

    Attributes:
        similarity: Their highest cosine; None for who may see no scores.
    """

    first_person_id: UUID
    second_person_id: UUID
    similarity: float | None


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A collection measured on its enrolled faces.

    Attributes:
        collection: The collection afterwards.
        contract_id: Embedding space of the vectors compared.
        gallery_size: Templates that a search compares now.
        persons: Persons compared.
        faces: Faces compared.
        sampled: Whether the persons were drawn from more.
        seed: Seed of the draw.
        measured: The measurement.
        closest: The two most similar persons.
        suspicious: Persons who may be enrolled twice, most similar first.
        groups: Error rates by metadata; None unless requested.
        applied: Whether the calibration was stored.
    """

    collection: Collection
    contract_id: str
    gallery_size: int
    persons: int
    faces: int
    sampled: bool
    seed: int
    measured: GalleryMeasurement
    closest: SuspiciousPair
    suspicious: tuple[SuspiciousPair, ...]
    groups: GroupsResult | None
    applied: bool

    @property
    def collection_id(self) -> UUID:
        """Return the id of the collection."""
        return self.collection.id

    @property
    def policy(self) -> DecisionPolicy:
        """Return the collection's policy afterwards."""
        return self.collection.policy

    @property
    def source(self) -> str:
        """Return the provenance of the new calibration's figures."""
        return self.measured.calibration.source


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """What decides in a collection now, and what other thresholds would mean.

    Attributes:
        collection: The collection.
        space: The embedding space that is searched.
        calibration: The calibration in effect.
        gallery_size: Templates that a search compares.
        current: The threshold of a search.
        curve: Error rates by the calibration.
    """

    collection: Collection
    space: LoadedSpace
    calibration: Calibration
    gallery_size: int
    current: Threshold
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _FaceSample:
    """Faces of a collection, persons in ascending order of their position in `owners`.

    Attributes:
        vectors: (n, d) unit vectors.
        person: (n,) positions in `owners`, never falling.
        labels: Metadata values by person.
        gallery_size: Templates in the whole gallery.
        sampled: Whether the persons were drawn from more.
    """

    vectors: FloatArray
    person: Indices
    owners: tuple[UUID, ...]
    labels: dict[UUID, str]
    gallery_size: int
    sampled: bool

    def build_pairs(self, measured: GalleryMeasurement, *, has_scores: bool) -> list[SuspiciousPair]:
        """Return the closest pair and then the similar ones by their persons' ids, with their cosines or without."""
        return [
            SuspiciousPair(self.owners[one], self.owners[two], score if has_scores else None)
            for one, two, score in (measured.closest_pair, *measured.similar_pairs)
        ]


class CollectionCalibrator:
    """Measures collections on their enrolled faces and stores the calibrations."""

    def __init__(self, database: Database, spaces: SpaceRegistry, collections: CollectionService) -> None:
        self._database = database
        self._spaces = spaces
        self._collections = collections

    async def get_state(self, principal: Principal, reference: str) -> CalibrationState:
        """Return the threshold in effect for searches of a collection, and the error rates that its calibration states.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that produces its vectors is not loaded.
        """
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.CALIBRATE)
            gallery_size = await work.templates.count_templates(collection.id, collection.space_id)
        space = self._spaces.get_space(collection.space_id)
        calibration = get_calibration(collection, space)
        current = compute_threshold(collection.policy, calibration, gallery_size)
        curve = build_stated_curve(calibration, gallery_size, current.cosine)
        return CalibrationState(collection, space, calibration, gallery_size, current, curve)

    async def calibrate(
        self,
        principal: Principal,
        reference: str,
        request: CalibrationRequest,
        *,
        idempotency: IdempotencyContext | None = None,
    ) -> CalibrationResult:
        """Compare the enrolled faces of a collection with each other, propose a threshold and, if requested, apply it.

        The comparisons run in a thread, while no transaction is open.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that produces its vectors is not loaded.
            InvalidInputError: Both targets are given, the collection is too small, or the metadata do not divide it
                into groups.
        """
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.CALIBRATE)
        space = self._spaces.get_space(collection.space_id)
        policy = request.build_policy(collection.policy)
        sample = await self._load_sample(collection, request)
        _check_sample_size(sample)
        measured, groups = await asyncio.to_thread(_measure_sample, sample, collection, policy, space, request)

        closest, *suspicious = sample.build_pairs(measured, has_scores=principal.may_see_scores)

        def build_result(calibrated: Collection) -> CalibrationResult:
            return CalibrationResult(
                collection=calibrated,
                contract_id=space.id,
                gallery_size=sample.gallery_size,
                persons=len(sample.owners),
                faces=len(sample.vectors),
                sampled=sample.sampled,
                seed=request.seed,
                measured=measured,
                closest=closest,
                suspicious=tuple(suspicious),
                groups=groups,
                applied=request.apply,
            )

        if not request.apply:
            return build_result(collection)
        async with self._database.transaction(idempotency=idempotency, writes_to=str(collection.id)) as work:
            calibrated = await self._collections.set_calibration(
                work,
                principal,
                collection.id,
                collection.space_id,
                measured.calibration,
                target_fmr=request.target_fmr,
                target_fpir=request.target_fpir,
            )
            result = build_result(calibrated)
            await work.store_response(result)
        return result

    async def _load_sample(self, collection: Collection, request: CalibrationRequest) -> _FaceSample:
        async with self._database.transaction(read_only=True) as work:
            counts = await work.templates.count_templates_by_person(collection.id, collection.space_id)
            chosen = draw_persons(counts, max_faces=request.sample, seed=request.seed)
            found = [one async for one in work.templates.stream_templates(collection.id, collection.space_id, chosen)]
            labels = (
                await work.persons.list_metadata_labels(collection.id, request.group_by) if request.group_by else {}
            )
        owners = tuple(dict.fromkeys(owner for owner, _ in found))
        position = {owner: index for index, owner in enumerate(owners)}
        vectors = np.stack([vector for _, vector in found]) if found else np.empty((0, 1), np.float32)
        return _FaceSample(
            # Stored as float16, they are not exactly of length 1; a search divides by the length too.
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
            np.array([position[owner] for owner, _ in found], np.int64),
            owners,
            labels,
            gallery_size=sum(counts.values()),
            sampled=len(chosen) < len(counts),
        )


def draw_persons(counts: dict[UUID, int], *, max_faces: int, seed: int) -> list[UUID]:
    """Return persons drawn at random until the next would exceed `max_faces`; at least two, or all if they fit.

    Args:
        counts: Faces by person.
        max_faces: Maximum number of faces of the persons drawn.
        seed: The same seed draws the same persons.
    """
    persons = sorted(counts)
    if sum(counts.values()) <= max_faces:
        return persons
    order = np.random.default_rng(seed).permutation(len(persons))
    total = np.cumsum([counts[persons[index]] for index in order])
    return [persons[index] for index in order[: max(2, int((total <= max_faces).sum()))]]


def _check_sample_size(sample: _FaceSample) -> None:
    faces = np.bincount(sample.person)
    comparisons = int(len(sample.person) ** 2 - (faces**2).sum()) // 2
    needed = round(RESOLVED_ERRORS / MAX_FMR)
    if comparisons < needed:
        raise InvalidInputError(
            f"The collection is too small to be measured: {len(sample.person)} faces of {len(sample.owners)} persons "
            f"under live consent allow {comparisons} comparisons of different persons, and {needed} are needed to "
            f"resolve even a false match rate of {MAX_FMR:g}. Enrol at least 15 persons; until then the pack's "
            "calibration holds.",
            comparisons=comparisons,
            needed=needed,
        )


def _measure_sample(
    sample: _FaceSample,
    collection: Collection,
    policy: DecisionPolicy,
    space: LoadedSpace,
    request: CalibrationRequest,
) -> tuple[GalleryMeasurement, GroupsResult | None]:
    scope = f"a sample drawn with seed {request.seed}" if sample.sampled else "all under live consent"
    measured = measure_gallery(
        sample.vectors,
        sample.person,
        pack=space.calibration,
        current=get_calibration(collection, space),
        policies=(collection.policy, policy),
        gallery_size=sample.gallery_size,
        description=(
            f"own gallery on {datetime.now(UTC):%Y-%m-%d}, {len(sample.vectors):,} faces of {len(sample.owners):,} "
            f"persons ({scope})"
        ),
    )
    if request.group_by is None:
        return measured, None
    limits = {one.threshold for one in (*measured.points, measured.current, measured.proposed)}
    labels = [sample.labels.get(owner) for owner in sample.owners]
    return measured, evaluate_groups(request.group_by, sample.vectors, sample.person, labels, sorted(limits))
