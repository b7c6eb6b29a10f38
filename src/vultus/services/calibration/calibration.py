"""Calibration of a living collection on the faces enrolled in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from vultus.domain import Actor, Collection, DecisionPolicy, FloatArray
from vultus.errors import InvalidInputError
from vultus.services.calibration.thresholds import LAXEST_FMR, Measured, measure_gallery
from vultus.services.collections import Collections, calibration_of, find_collection
from vultus.statistics.groups import GroupsResult, evaluate_groups
from vultus.statistics.metrics import RESOLVED_ERRORS, Indices

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.models.pipeline import FacePipeline
    from vultus.models.pipelines import Pipelines

DEFAULT_SAMPLE = 5_000
LEAST_SAMPLE, MOST_SAMPLE = 100, 20_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a calibration is asked for.

    Attributes:
        target_fmr: False match rate of one comparison to propose a threshold for.
        target_fpir: False positive identification rate of a search, instead; with neither, the policy's own aim.
        apply: Store the calibration and, if one was given, the target.
        sample: Most faces compared; of a larger gallery persons are drawn until they own as many.
        seed: Of the draw.
        group_by: Metadata key to report error rates by.
    """

    target_fmr: float | None = None
    target_fpir: float | None = None
    apply: bool = False
    sample: int = DEFAULT_SAMPLE
    seed: int = 0
    group_by: str | None = None

    def policy(self, home: DecisionPolicy) -> DecisionPolicy:
        """Return the collection's policy with the wanted target.

        Raises:
            InvalidInputError: Both targets are given.
        """
        if self.target_fmr is None and self.target_fpir is None:
            return home
        if self.target_fmr is not None and self.target_fpir is not None:
            raise InvalidInputError("Give either target_fmr or target_fpir, not both.")
        return replace(home, threshold=None, target_fmr=self.target_fmr, target_fpir=self.target_fpir)


@dataclass(frozen=True, slots=True)
class Suspicious:
    """Two persons so alike that they may be one, enrolled twice, with their highest cosine."""

    first_person_id: UUID
    second_person_id: UUID
    similarity: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A collection measured on its own faces.

    Attributes:
        collection: As it is afterwards.
        contract_id: Of the vectors compared.
        gallery_size: Templates a search compares now.
        persons: Who were compared.
        faces: Theirs.
        sampled: Whether they were drawn from more.
        seed: Of the draw.
        measured: The figures.
        suspicious: Best first.
        groups: Error rates by metadata; None unless asked for.
        applied: Whether the calibration was stored.
    """

    collection: Collection
    contract_id: str
    gallery_size: int
    persons: int
    faces: int
    sampled: bool
    seed: int
    measured: Measured
    suspicious: tuple[Suspicious, ...]
    groups: GroupsResult | None
    applied: bool

    @property
    def collection_id(self) -> UUID:
        """Id of the collection."""
        return self.collection.id

    @property
    def policy(self) -> DecisionPolicy:
        """The collection's policy now."""
        return self.collection.policy

    @property
    def source(self) -> str:
        """What came from where in the new calibration."""
        return self.measured.calibration.source


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Faces of a collection: vectors, (n, d) of length 1, with the position of each one's person in `owners`."""

    vectors: FloatArray
    person: Indices
    owners: tuple[UUID, ...]
    labels: dict[UUID, str]
    gallery_size: int
    sampled: bool


class OwnGallery:
    """Measures collections on their own faces, and stores what was measured."""

    def __init__(self, database: Database, pipelines: Pipelines, collections: Collections) -> None:
        self._database = database
        self._pipelines = pipelines
        self._collections = collections

    async def calibrate(self, reference: str, wanted: Wanted, *, actor: Actor) -> Calibrated:
        """Compare the enrolled faces of a collection with each other, propose a threshold and, if asked, set it.

        The comparisons are made in a thread; no transaction is open meanwhile.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that makes its vectors is not loaded.
            InvalidInputError: Both targets are given, the collection is too small, or the metadata do not divide it
                into groups.
        """
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, reference)
        pipeline = self._pipelines.of(home.contract_id)
        policy = wanted.policy(home.policy)
        drawn = await self._draw(home, wanted)
        _check_size(drawn)
        measured, groups = await asyncio.to_thread(_compare, drawn, home, policy, pipeline, wanted)
        if wanted.apply:
            home = await self._collections.calibrate(
                home.id,
                home.contract_id,
                measured.calibration,
                target_fmr=wanted.target_fmr,
                target_fpir=wanted.target_fpir,
                actor=actor,
            )
        return Calibrated(
            collection=home,
            contract_id=pipeline.contract.id,
            gallery_size=drawn.gallery_size,
            persons=len(drawn.owners),
            faces=len(drawn.vectors),
            sampled=drawn.sampled,
            seed=wanted.seed,
            measured=measured,
            suspicious=tuple(
                Suspicious(drawn.owners[one], drawn.owners[two], score) for one, two, score in measured.alike
            ),
            groups=groups,
            applied=wanted.apply,
        )

    async def _draw(self, home: Collection, wanted: Wanted) -> _Drawn:
        async with self._database.work(read_only=True) as work:
            counts = await work.faces.per_person(home.id, home.contract_id)
            chosen = draw_persons(counts, most_faces=wanted.sample, seed=wanted.seed)
            found = [one async for one in work.faces.templates(home.id, home.contract_id, chosen)]
            labels = await work.persons.labels(home.id, wanted.group_by) if wanted.group_by else {}
        owners = tuple(dict.fromkeys(owner for owner, _ in found))
        number = {owner: at for at, owner in enumerate(owners)}
        vectors = np.stack([vector for _, vector in found]) if found else np.empty((0, 1), np.float32)
        return _Drawn(
            # Stored as float16, they are not quite of length 1; a search divides by the length too.
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
            np.array([number[owner] for owner, _ in found], np.int64),
            owners,
            labels,
            gallery_size=sum(counts.values()),
            sampled=len(chosen) < len(counts),
        )


def draw_persons(counts: dict[UUID, int], *, most_faces: int, seed: int) -> list[UUID]:
    """Return persons drawn at random, with all their faces, until one more would make the faces too many.

    Args:
        counts: Faces by person.
        most_faces: The bound.
        seed: The same one draws the same persons.
    """
    persons = sorted(counts)
    if sum(counts.values()) <= most_faces:
        return persons
    order = np.random.default_rng(seed).permutation(len(persons))
    total = np.cumsum([counts[persons[at]] for at in order])
    return [persons[at] for at in order[: max(2, int((total <= most_faces).sum()))]]


def _check_size(drawn: _Drawn) -> None:
    faces = np.bincount(drawn.person)
    comparisons = int(len(drawn.person) ** 2 - (faces**2).sum()) // 2
    needed = round(RESOLVED_ERRORS / LAXEST_FMR)
    if comparisons < needed:
        raise InvalidInputError(
            f"The collection is too small to be measured: {len(drawn.person)} faces of {len(drawn.owners)} persons "
            f"under live consent allow {comparisons} comparisons of different persons, and {needed} are needed to "
            f"resolve even a false match rate of {LAXEST_FMR:g}. Enrol at least 15 persons; until then the pack's "
            "calibration holds.",
            comparisons=comparisons,
            needed=needed,
        )


def _compare(
    drawn: _Drawn, home: Collection, policy: DecisionPolicy, pipeline: FacePipeline, wanted: Wanted
) -> tuple[Measured, GroupsResult | None]:
    whole = f"a sample drawn with seed {wanted.seed}" if drawn.sampled else "all under live consent"
    measured = measure_gallery(
        drawn.vectors,
        drawn.person,
        pack=pipeline.calibration,
        current=calibration_of(home, pipeline),
        policies=(home.policy, policy),
        gallery_size=drawn.gallery_size,
        described=(
            f"own gallery on {datetime.now(UTC):%Y-%m-%d}, {len(drawn.vectors):,} faces of {len(drawn.owners):,} "
            f"persons ({whole})"
        ),
    )
    if wanted.group_by is None:
        return measured, None
    limits = dict.fromkeys([*(one.threshold for one in measured.points), measured.proposed.threshold])
    labels = [drawn.labels.get(owner) for owner in drawn.owners]
    return measured, evaluate_groups(wanted.group_by, drawn.vectors, drawn.person, labels, sorted(limits))
