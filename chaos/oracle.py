"""F16: a caller with a key to recognise alone has 5,000 answers; is an enrolled template rebuilt from them?

The services decide, with the limits, PostgreSQL and the thresholds that a server has; only the networks are left out,
and photos name vectors. Strangers and persons are those of LFW (`VULTUS_LFW`, with the default pack), or drawn. The
caller knows the vectors of all photos sent, as with public networks, and how strangers are distributed.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.packs import SECOND, describe_pipeline

from chaos.outcome import Bar, Outcome, Plan
from chaos.service import make_data_directory
from vultus.domain import (
    Analysis,
    Band,
    Box,
    Decision,
    DescribedFace,
    DetectedFace,
    Embedding,
    FloatArray,
    Principal,
    Quality,
    Role,
    SpaceRegistry,
    Verdict,
)
from vultus.errors import VerificationLimitError
from vultus.main import open_database, open_weights_store
from vultus.models.pipelines import PipelineRegistry
from vultus.services.enrolment.bulk import VectorBatch
from vultus.services.people.consents import ConsentGrant
from vultus.services.photo_analysis import Photo
from vultus.services.wiring import Services, build_services
from vultus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from numpy.typing import NDArray

BAR = "no vector passes; mean cosine beyond the strangers' mean ≤ 0.2"
QUERIES, SHORT_QUERIES = 5_000, 300
VERIFICATIONS = 100
"""Of the queries, those that verify one person; the others recognise."""

SCORED = 160
"""Verifications with scores, which rebuild a template of 128 numbers: the control."""

SPREAD = 25.0
"""Of drawn faces: the variance of a coordinate falls by e over so many, about as steeply as of real embeddings."""

DRAWN_FMR, DEVIATIONS = 1e-6, 4.75
"""Of drawn faces at the threshold, and how many standard deviations of their cosines that is."""

COLLECTION = "staff"
PERSON = "person-0"
PLANNER = Principal.from_process("chaos")
RIDGE, CONDITION = 1e-2, 2e-3
SHARP = Quality(size_px=200, sharpness=5000, brightness=0.5, yaw_deg=0, pitch_deg=0, roll_deg=0)


@dataclass(frozen=True, slots=True)
class Faces:
    """Vectors of length 1: of persons to enrol, and of strangers."""

    persons: FloatArray
    strangers: FloatArray
    spaces: SpaceRegistry
    policy: dict[str, Any]
    source: str


class _Engine:
    """In place of the networks: a photo is the row of a vector."""

    def __init__(self, vectors: FloatArray, space_id: str) -> None:
        self._vectors = vectors
        self._space_id = space_id

    async def analyze_photo(self, photo: bytes, *_: object, **__: object) -> Analysis:
        face = DetectedFace(Box(0, 0, 200, 200), np.zeros((5, 2), np.float32), 1.0)
        embedding = Embedding(self._vectors[int(photo)], self._space_id)
        return Analysis(400, 400, "", (DescribedFace(face, SHARP, embedding),))


async def measure(plan: Plan) -> Outcome:
    """Enrol persons, ask 5,000 times with a key to recognise, and rebuild every person's template."""
    queries, outcome = plan.choose(QUERIES, SHORT_QUERIES), Outcome()
    faces = _load_faces(plan, queries)
    mean = faces.strangers.mean(axis=0)
    async with _open_services(faces) as services:
        await _enrol(services, faces)
        await _check_control(services, faces, mean, outcome)
        verified = await _verify(services, faces, outcome)
        answers, threshold = await _recognize(services, faces, queries - VERIFICATIONS)
    answers[: len(verified), 0] += verified
    cosines, falsely_matched = [], 0
    for at, person in enumerate(faces.persons):
        rebuilt = _rebuild(faces.strangers[: len(answers)], answers[:, at], mean)
        cosines.append(_compute_centred_cosine(rebuilt, person, mean))
        if answers[:, at].any():  # the stranger's own photo passes, whatever is computed from it
            falsely_matched += 1
        else:
            cosine = float(rebuilt @ person / np.linalg.norm(rebuilt))
            outcome.check(cosine < threshold, f"the template of person {at} was rebuilt")
    outcome.bars.append(Bar("mean cosine beyond the strangers' mean", float(np.mean(cosines)), 0.2))
    outcome.notes.append(f"{falsely_matched} of {len(faces.persons)} persons were falsely matched by a stranger")
    outcome.notes.append(faces.source)
    return outcome


def _load_faces(plan: Plan, count: int) -> Faces:
    """Return faces of LFW, one of every person, or drawn ones."""
    folder = os.environ.get("VULTUS_LFW")
    if plan.short or not folder:
        return _draw_faces(plan, count)
    settings = Settings()
    pipelines = PipelineRegistry.load(settings.inference, settings.photos, open_weights_store(settings))
    files = [min(person.glob("*.jpg")) for person in sorted(Path(folder).iterdir()) if any(person.glob("*.jpg"))]
    plan.make_random().shuffle(files)
    vectors: list[Any] = []
    for path in files:
        if len(vectors) == count + 200:
            break
        faces = pipelines.default.analyze_photo(path.read_bytes()).faces
        if faces:
            vectors.append(max(faces, key=lambda face: face.quality.size_px).vector)
    found = np.stack(vectors)
    return Faces(found[:200], found[200:], pipelines.spaces, {}, f"LFW, pack {pipelines.default.pack.name}")


def _draw_faces(plan: Plan, count: int) -> Faces:
    generator = np.random.default_rng(plan.seed)
    deviations = np.exp(-np.arange(128) / (2 * SPREAD))
    drawn = generator.standard_normal((count + 20, 128)) * deviations
    drawn = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    pairs = (drawn[:100] @ drawn[100:].T).ravel()
    threshold = float(pairs.mean() + DEVIATIONS * pairs.std())
    spaces = PipelineRegistry(describe_pipeline(SECOND)).spaces
    source = f"drawn faces, false match rate about {DRAWN_FMR:g}"
    return Faces(drawn[:20], drawn[20:], spaces, {"threshold": threshold}, source)


@asynccontextmanager
async def _open_services(faces: Faces) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        settings = Settings(data_dir=stack.enter_context(make_data_directory()))
        database = await stack.enter_async_context(open_database(settings, migrates=True))
        engine: Any = _Engine(faces.strangers, faces.spaces.default.id)
        services = build_services(settings, database, engine, faces.spaces)
        stack.callback(services.candidate_engine.close)
        await services.collections.create_collection(PLANNER, COLLECTION, policy=faces.policy)
        yield services


async def _enrol(services: Services, faces: Faces) -> None:
    names = [f"person-{at}" for at in range(len(faces.persons))]
    batch = VectorBatch(
        collection=COLLECTION,
        space_id=faces.spaces.default.id,
        external_ids=names,
        names=[None] * len(names),
        vectors=faces.persons,
        consent=ConsentGrant("Test", "chaos"),
    )
    await services.bulk_registrar.register(PLANNER, batch)


async def _make_caller(services: Services, role: Role) -> Principal:
    key, _ = await services.access.create_key(PLANNER, "caller", role, collections=[COLLECTION])
    return Principal.from_key(key)


async def _check_control(services: Services, faces: Faces, mean: FloatArray, outcome: Outcome) -> None:
    """Rebuild a template with scores, and without the limit of failures, which a command does not have."""
    scores = [
        (await services.verifier.verify(PLANNER, _build_photo(at), reference=COLLECTION, person=PERSON)).similarity or 0
        for at in range(SCORED)
    ]
    rebuilt = np.linalg.lstsq(faces.strangers[:SCORED], np.array(scores), rcond=CONDITION)[0]
    cosine = _compute_centred_cosine(rebuilt / np.linalg.norm(rebuilt), faces.persons[0], mean)
    outcome.require_control(cosine > 0.95, f"with scores {SCORED} answers rebuild a template, cosine {cosine:.3f}")


async def _verify(services: Services, faces: Faces, outcome: Outcome) -> NDArray[np.float64]:
    """Return the answers about one person, as many as the limit lets through; all tries come at once."""
    caller, answers, refused = await _make_caller(services, Role.RECOGNIZE), [], 0
    for at in range(VERIFICATIONS):
        try:
            found = await services.verifier.verify(caller, _build_photo(at), reference=COLLECTION, person=PERSON)
        except VerificationLimitError:
            refused += 1
        else:
            answers.append(_score_answer(found.decision))
            outcome.check(found.similarity is None and found.probability is None, "a verification shows a score")
    outcome.notes.append(f"{refused} of {VERIFICATIONS} verifications refused")
    return np.array(answers)


async def _recognize(services: Services, faces: Faces, queries: int) -> tuple[NDArray[np.float64], float]:
    """Return per query and person how the answer named the person, and the threshold."""
    caller, threshold = await _make_caller(services, Role.RECOGNIZE), 0.0
    answers = np.zeros((queries, len(faces.persons)))
    for at in range(queries):
        found = await services.recognizer.recognize(caller, _build_photo(at), reference=COLLECTION, limit=0)
        (face,) = found.faces
        threshold = face.decision.threshold
        if face.person is not None:
            person = int((face.person.external_id or "").removeprefix("person-"))
            answers[at, person] = _score_answer(face.decision)
    return answers, threshold


def _build_photo(row: int) -> Photo:
    return Photo(str(row).encode())


def _score_answer(decision: Decision) -> float:
    """Return all that is told: 0 for no match, 1 for one near the threshold, 2 for a clear one."""
    if decision.verdict is not Verdict.MATCH:
        return 0.0
    return 2.0 if decision.band is Band.CLEAR else 1.0


def _rebuild(probes: FloatArray, answers: NDArray[np.float64], mean: FloatArray) -> NDArray[np.float64]:
    """Return the vector that explains the answers best: least squares with a ridge; the mean if they say nothing."""
    centred = (probes - mean).astype(np.float64)
    spread = centred.T @ centred
    weights = np.linalg.solve(
        spread + np.eye(len(spread)) * RIDGE * np.trace(spread) / len(spread), centred.T @ (answers - answers.mean())
    )
    length = float(np.linalg.norm(weights)) or 1.0
    return np.asarray(mean + weights / length * np.linalg.norm(centred, axis=1).mean(), np.float64)


def _compute_centred_cosine(first: Any, second: Any, mean: Any) -> float:
    one, other = first - mean, second - mean
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other) or 1.0))  # 0 for the mean itself
