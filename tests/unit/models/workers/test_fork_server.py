"""Workers that are processes: real networks, loaded once, in processes that may die."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.faces import nobody, portrait

from vultus.errors import (
    ImageError,
    NotAnImageError,
    SetupError,
    UnavailableError,
    WeightsError,
    WorkerLostError,
)
from vultus.models.pipelines import Pipelines
from vultus.models.weights.store import WeightsStore
from vultus.models.workers.fork_server import Processes, ProcessWorker, _read_answers
from vultus.models.workers.pool import AnalysisPool
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from mmap import mmap  # noqa: TC004  annotations are not evaluated
    from pathlib import Path

    from vultus.models.pipeline import FacePipeline

SETTINGS = InferenceSettings(workers=2, max_queue=32, max_batch=4)


@pytest.fixture(scope="module", params=[True, False], ids=["common networks", "networks of their own"])
async def crew(graph_cache: Path, request: pytest.FixtureRequest) -> AsyncIterator[Processes]:
    """Two workers."""
    load = partial(Pipelines.load, SETTINGS, PhotoSettings(), WeightsStore(graph_cache))
    crew = Processes(load, pixel_budget=PhotoSettings().pixel_budget, patience_s=60, shared=request.param)
    crew.known = await crew.ready()  # type: ignore[attr-defined]
    await crew.start(2)
    yield crew
    for worker in crew.workers:
        await worker.close()
    await crew.close()
    assert not any(psutil.pid_exists(worker.pid) for worker in crew.workers)


@pytest.fixture
def known(crew: Processes) -> FacePipeline:
    """What this process knows of the pipeline that the others run."""
    pipelines: Pipelines = crew.known  # type: ignore[attr-defined]
    return pipelines.default


async def test_processes_describe_as_this_one_does(
    crew: Processes, known: FacePipeline, pipeline: FacePipeline
) -> None:
    photos = [portrait(angle=angle) for angle in range(0, 40, 5)]
    pool = AnalysisPool(SETTINGS, crew)
    answers = await asyncio.gather(*(pool.analyze(photo, known, crops=True) for photo in [*photos, nobody()]))

    for photo, answer in zip(photos, answers[:-1], strict=True):
        (ours,), (theirs,) = answer.faces, pipeline.describe(photo, crops=True).faces
        assert ours.vector @ theirs.vector == pytest.approx(1, abs=1e-5)
        assert (ours.face.box, ours.quality, ours.crop) == (theirs.face.box, theirs.quality, theirs.crop)
    assert answers[-1].faces == ()
    assert (known.contract, known.calibration) == (pipeline.contract, pipeline.calibration)


async def test_errors_come_back_as_what_they_are(crew: Processes, known: FacePipeline) -> None:
    pool = AnalysisPool(SETTINGS, crew)
    with pytest.raises(NotAnImageError, match="not an image"):
        await pool.analyze(b"no photo", known)
    with pytest.raises(ImageError):
        await pool.analyze(portrait()[:2000], known)


async def test_a_killed_worker_is_replaced_and_its_photo_answered(crew: Processes, known: FacePipeline) -> None:
    pool = AnalysisPool(SETTINGS, crew)
    before = {worker.pid for worker in crew.workers}
    victim = crew.workers[-1].pid  # the free one that is taken first
    os.kill(victim, signal.SIGSTOP)
    asked = asyncio.create_task(pool.analyze(portrait(), known))
    await asyncio.sleep(0.05)
    os.kill(victim, signal.SIGKILL)

    with pytest.raises(WorkerLostError, match="do not send it again"):
        await asked
    answers = await asyncio.gather(*(pool.analyze(portrait(), known) for _ in range(6)))
    await asyncio.gather(*pool._batches)

    assert [len(answer.faces) for answer in answers] == [1] * 6
    assert len({worker.pid for worker in crew.workers} - before) == 1


async def test_a_worker_that_hangs_is_replaced(
    crew: Processes, known: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = AnalysisPool(SETTINGS, crew)
    victim = crew.workers[-1].pid
    os.kill(victim, signal.SIGSTOP)
    monkeypatch.setattr(crew, "patience_s", 0.2)
    with pytest.raises(WorkerLostError):
        await pool.analyze(portrait(), known)
    monkeypatch.undo()

    await asyncio.gather(*pool._batches)
    assert victim not in {worker.pid for worker in crew.workers}
    answers = await asyncio.gather(*(pool.analyze(portrait(), known) for _ in range(6)))
    assert [len(answer.faces) for answer in answers] == [1] * 6


@dataclass(frozen=True)
class OneOf:
    """A crew of one."""

    workers: tuple[ProcessWorker, ...]
    crowd: mmap


async def test_photos_of_a_batch_whose_worker_died_are_tried_again_one_by_one(
    crew: Processes, known: FacePipeline
) -> None:
    worker = crew.workers[0]
    pool = AnalysisPool(SETTINGS, OneOf((worker,), crew.crowd))
    first = asyncio.create_task(pool.analyze(portrait(), known))
    others = [asyncio.create_task(pool.analyze(portrait(angle=angle), known)) for angle in (5, 10, 15, 20)]
    await first
    os.kill(worker.pid, signal.SIGSTOP)
    assert (len(pool._line), pool.waiting) == (0, 4)
    os.kill(worker.pid, signal.SIGKILL)

    assert [len((await other).faces) for other in others] == [1, 1, 1, 1]


async def test_without_a_process_that_forks_the_pool_says_that_it_cannot_go_on(graph_cache: Path) -> None:
    load = partial(Pipelines.load, SETTINGS, PhotoSettings(), WeightsStore(graph_cache))
    crew = Processes(load, pixel_budget=1000, patience_s=60)
    known = (await crew.ready()).default
    await crew.start(1)
    async with AnalysisPool(SETTINGS, crew) as pool:
        os.kill(crew._pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, crew._pid, 0)
        assert (await pool.analyze(portrait(), known)).faces
        os.kill(crew.workers[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            await pool.analyze(portrait(), known)
        with pytest.raises(UnavailableError, match="must be started again"):
            await pool.analyze(portrait(), known)
        with pytest.raises(UnavailableError, match="must be started again"):
            pool.check_workers()
    await crew.close()


async def test_a_process_that_ends_while_it_loads_is_reported_here() -> None:
    """Killed for want of memory, say."""
    for shared in (True, False):
        crew = Processes(lambda: os.abort(), pixel_budget=1000, patience_s=60, shared=shared)
        with pytest.raises(SetupError, match="enough memory"):
            await crew.ready()
        await crew.close()


@pytest.mark.parametrize("shared", [True, False])
async def test_networks_that_cannot_be_loaded_are_reported_here(tmp_path: Path, shared: bool) -> None:
    settings = InferenceSettings(pack="opencv")
    load = partial(Pipelines.load, settings, PhotoSettings(), WeightsStore(tmp_path))
    crew = Processes(load, pixel_budget=1000, patience_s=60, shared=shared)
    with pytest.raises(WeightsError):
        await crew.ready()
    await crew.close()


@pytest.mark.parametrize(
    "named",
    [
        "posix\nsystem",
        "numpy.testing\nrunstring",
        "numpy\nmemmap",
        "numpy\nload",
        "vultus.domain.faces\nnp",
        "vultus.domain\nfaces.np.load",
        "vultus.errors\nStrEnum",
        "builtins\neval",
    ],
)
def test_a_worker_cannot_have_code_run_here(named: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match="a worker sent"):
        _read_answers(b"c" + named.encode() + b"\n.")


def test_what_a_worker_sends_must_be_analyses() -> None:
    wrong: list[object] = [[1], {}, "text"]
    for sent in wrong:
        with pytest.raises(pickle.UnpicklingError):
            _read_answers(pickle.dumps(sent))
    (answer,) = _read_answers(pickle.dumps([WeightsError("missing")]))
    assert isinstance(answer, WeightsError)
