"""Worker processes: real networks, loaded once, in processes that may die."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from tests.faces import encoded, nobody, portrait

from vultus.domain import Analysis, Pixels, SpaceRegistry, Want
from vultus.errors import (
    ImageError,
    ImageTooSlowError,
    NotAnImageError,
    SetupError,
    UnavailableError,
    WeightsError,
    WorkerLostError,
)
from vultus.models.imaging.jpeg import JpegPicture
from vultus.models.pipeline import AnalysisRequest
from vultus.models.pipelines import PipelineRegistry
from vultus.models.weights.store import WeightsStore
from vultus.models.workers import processes
from vultus.models.workers.fork_server import ProcessWorker, ProcessWorkerGroup
from vultus.models.workers.messages import LENGTH_HEADER, Hello, encode_message
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import WorkerEndedError
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from mmap import mmap  # noqa: TC004  annotations are not evaluated

    from vultus.models.pipeline import FacePipeline

SETTINGS = InferenceSettings(workers=2, max_queue=32, max_batch=4)
either_kind = pytest.mark.parametrize(
    "group", [True, False], ids=["common networks", "networks of their own"], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=[True], ids=["common networks"])
async def group(request: pytest.FixtureRequest) -> AsyncIterator[ProcessWorkerGroup]:
    """Two workers; with networks of their own where a test says so, for they load them at each start."""
    load = partial(PipelineRegistry.load, SETTINGS, PhotoSettings(), WeightsStore())
    group = ProcessWorkerGroup(load, memory_budget=PhotoSettings().memory_budget, timeout_s=60, shared=request.param)
    group.spaces = await group.wait_until_loaded()  # type: ignore[attr-defined]
    await group.start_workers(2)
    yield group
    for worker in group.workers:
        await worker.close()
    await group.close()
    assert not any(psutil.pid_exists(worker.pid) for worker in group.workers)


@pytest.fixture
def space_id(group: ProcessWorkerGroup) -> str:
    """The embedding space that the workers know."""
    spaces: SpaceRegistry = group.spaces  # type: ignore[attr-defined]
    return spaces.default.id


@either_kind
async def test_processes_return_the_analyses_of_this_one(
    group: ProcessWorkerGroup, space_id: str, pipeline: FacePipeline
) -> None:
    photos = [portrait(angle=angle) for angle in range(0, 40, 5)]
    pool = AnalysisPool(SETTINGS, group)
    answers = await asyncio.gather(
        *(pool.analyze_photo(photo, space_id, Want(crops=True)) for photo in [*photos, nobody()])
    )

    for photo, answer in zip(photos, answers[:-1], strict=True):
        (returned,), (expected,) = answer.faces, pipeline.analyze_photo(photo, Want(crops=True)).faces
        assert returned.vector @ expected.vector == pytest.approx(1, abs=1e-5)
        assert (returned.face.box, returned.quality, returned.crop) == (
            expected.face.box,
            expected.quality,
            expected.crop,
        )
    assert answers[-1].faces == ()
    assert list(group.spaces) == [pipeline.describe_space()]  # type: ignore[attr-defined]


async def test_errors_keep_their_type(group: ProcessWorkerGroup, space_id: str) -> None:
    pool = AnalysisPool(SETTINGS, group)
    with pytest.raises(NotAnImageError, match="not an image"):
        await pool.analyze_photo(b"no photo", space_id)
    with pytest.raises(ImageError):
        await pool.analyze_photo(portrait()[:2000], space_id)


@either_kind
async def test_a_killed_worker_is_replaced_and_its_photo_answered(group: ProcessWorkerGroup, space_id: str) -> None:
    pool = AnalysisPool(SETTINGS, group)
    before = {worker.pid for worker in group.workers}
    victim = group.workers[-1].pid  # the free one that is taken first
    os.kill(victim, signal.SIGSTOP)
    analysis = asyncio.create_task(pool.analyze_photo(portrait(), space_id))
    await asyncio.sleep(0.05)
    os.kill(victim, signal.SIGKILL)

    assert (await analysis).faces  # tried once more
    answers = await asyncio.gather(*(pool.analyze_photo(portrait(), space_id) for _ in range(6)))
    await asyncio.gather(*pool._batch_tasks)

    assert [len(answer.faces) for answer in answers] == [1] * 6
    assert len({worker.pid for worker in group.workers} - before) == 1


async def test_a_worker_that_hangs_is_replaced(
    group: ProcessWorkerGroup, space_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = AnalysisPool(SETTINGS, group)
    victim = group.workers[-1].pid
    os.kill(victim, signal.SIGSTOP)
    monkeypatch.setattr(group, "timeout_s", 0.2)
    with pytest.raises(WorkerLostError):
        await pool.analyze_photo(portrait(), space_id)
    monkeypatch.undo()

    await asyncio.gather(*pool._batch_tasks)
    assert victim not in {worker.pid for worker in group.workers}
    answers = await asyncio.gather(*(pool.analyze_photo(portrait(), space_id) for _ in range(6)))
    assert [len(answer.faces) for answer in answers] == [1] * 6


@dataclass(frozen=True)
class SingleWorkerGroup:
    """A worker group of one."""

    workers: tuple[ProcessWorker, ...]
    in_flight: mmap


async def test_photos_of_a_batch_whose_worker_died_are_retried_one_by_one(
    group: ProcessWorkerGroup, space_id: str
) -> None:
    worker = group.workers[0]
    pool = AnalysisPool(SETTINGS, SingleWorkerGroup((worker,), group.in_flight))
    first = asyncio.create_task(pool.analyze_photo(portrait(), space_id))
    others = [asyncio.create_task(pool.analyze_photo(portrait(angle=angle), space_id)) for angle in (5, 10, 15, 20)]
    await first
    os.kill(worker.pid, signal.SIGSTOP)
    assert (len(pool._queue), pool.in_flight) == (0, 4)
    os.kill(worker.pid, signal.SIGKILL)

    assert [len((await other).faces) for other in others] == [1, 1, 1, 1]


async def wait_until_replaced(group: ProcessWorkerGroup, victims: set[int]) -> None:
    for _ in range(1000):
        if not victims & {worker.pid for worker in group.workers}:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a worker was not replaced")


async def test_a_photo_that_ends_two_workers_is_not_tried_again(group: ProcessWorkerGroup, space_id: str) -> None:
    pool = AnalysisPool(SETTINGS, SingleWorkerGroup((group.workers[0],), group.in_flight))
    analysis = asyncio.create_task(pool.analyze_photo(portrait(), space_id))
    for _ in range(2):
        victim = group.workers[0].pid
        os.kill(victim, signal.SIGSTOP)
        await asyncio.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        await wait_until_replaced(group, {victim})

    with pytest.raises(WorkerLostError, match="do not send it again"):
        await analysis
    await asyncio.gather(*pool._batch_tasks)


async def test_a_worker_that_dies_idle_is_replaced_before_it_gets_a_photo(
    group: ProcessWorkerGroup, space_id: str
) -> None:
    pool = AnalysisPool(SETTINGS, group)
    before = {worker.pid for worker in group.workers}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await wait_until_replaced(group, before)
    await asyncio.gather(*pool._batch_tasks)

    assert len(pool._free_workers) == 2
    assert (await pool.analyze_photo(portrait(), space_id)).faces


async def test_a_worker_in_which_an_analysis_failed_is_replaced(
    pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed once for a reason that nobody foresaw could fail at every further photo."""
    decode, failing = JpegPicture.decode, encoded(np.full((200, 200), 128, np.uint8))

    def decode_or_fail(picture: JpegPicture, *values: Any, **options: Any) -> Any:
        if picture._channels == 1:
            raise ZeroDivisionError
        return decode(picture, *values, **options)

    monkeypatch.setattr(JpegPicture, "decode", decode_or_fail)  # the processes forked from now on inherit it
    group = ProcessWorkerGroup(lambda: PipelineRegistry(pipeline), memory_budget=2**29, timeout_s=60)
    space_id = (await group.wait_until_loaded()).default.id
    await group.start_workers(1)
    before = group.workers[0].pid
    async with AnalysisPool(SETTINGS, group) as pool:
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            await pool.analyze_photo(failing, space_id)
        assert (await pool.analyze_photo(portrait(), space_id)).faces
        assert group.workers[0].pid != before
    await group.close()


@either_kind
async def test_a_fork_server_that_died_is_replaced(group: ProcessWorkerGroup, space_id: str) -> None:
    pool = AnalysisPool(SETTINGS, group)
    (victim,) = psutil.Process(group._keeper_pid).children()
    victim.kill()
    assert (await pool.analyze_photo(portrait(), space_id)).faces  # the workers live on
    before = {worker.pid for worker in group.workers}
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    answers = await asyncio.gather(*(pool.analyze_photo(portrait(), space_id) for _ in range(3)))
    await asyncio.gather(*pool._batch_tasks)

    assert [len(answer.faces) for answer in answers] == [1] * 3
    (successor,) = psutil.Process(group._keeper_pid).children()
    assert successor.pid != victim.pid


async def test_when_no_worker_can_be_made_the_pool_says_so(
    pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vultus.models.workers.pool.RESTART_PAUSES_S", (0, 0.1))
    group = ProcessWorkerGroup(lambda: PipelineRegistry(pipeline), memory_budget=1000, timeout_s=60)
    space_id = (await group.wait_until_loaded()).default.id
    await group.start_workers(1)
    lost = asyncio.Event()
    async with AnalysisPool(SETTINGS, group, on_lost=lost.set) as pool:
        processes = [group._keeper_pid, *(one.pid for one in psutil.Process(group._keeper_pid).children())]
        for pid in (*processes, group.workers[0].pid):
            os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(lost.wait(), 10)
        with pytest.raises(UnavailableError, match="must be started again"):
            await pool.analyze_photo(portrait(), space_id)
        with pytest.raises(UnavailableError, match="must be started again"):
            pool.ensure_workers()
    await group.close()


async def test_a_photo_that_takes_too_long_to_decode_is_stopped_and_its_neighbours_answered(
    pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = JpegPicture.decode

    def decode_slowly(picture: JpegPicture, divisor: int) -> Pixels:
        while picture.header.width == 2 * 512:
            pass
        return decode(picture, divisor)

    monkeypatch.setattr(JpegPicture, "decode", decode_slowly)  # the processes forked from now on inherit it
    group = ProcessWorkerGroup(
        lambda: PipelineRegistry(pipeline), memory_budget=2**29, timeout_s=60, decode_timeout_s=0.3
    )
    space_id = (await group.wait_until_loaded()).default.id
    await group.start_workers(1)
    async with AnalysisPool(SETTINGS, group) as pool:
        first = asyncio.create_task(pool.analyze_photo(portrait(), space_id))
        photos = [portrait(angle=5), portrait(scale=2), portrait(angle=10)]
        answers = await asyncio.gather(
            *(pool.analyze_photo(photo, space_id) for photo in photos), return_exceptions=True
        )
        assert (await first).faces
    await group.close()

    assert isinstance(answers[1], ImageTooSlowError)
    assert [len(answer.faces) for answer in (answers[0], answers[2]) if isinstance(answer, Analysis)] == [1, 1]


async def test_workers_leave_the_cores_to_whoever_answers(group: ProcessWorkerGroup) -> None:
    priorities = {os.getpriority(os.PRIO_PROCESS, worker.pid) for worker in group.workers}

    assert min(priorities) > os.getpriority(os.PRIO_PROCESS, 0)


async def test_workers_are_confined(group: ProcessWorkerGroup, space_id: str) -> None:
    for worker in group.workers:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        limits = psutil.Process(worker.pid)
        data = 1024 * int(status["VmData"].split()[0])
        assert status["NoNewPrivs"] == "1"
        assert {status[kind] for kind in ("CapPrm", "CapEff", "CapInh")} == {"0" * 16}
        assert status["CapBnd"] == "0" * 16 or os.geteuid() != 0
        assert limits.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert data < limits.rlimit(psutil.RLIMIT_DATA)[0] <= data + PhotoSettings().memory_budget + 2**30


async def test_a_process_that_ends_while_it_loads_is_reported_here() -> None:
    """For example, killed when memory runs out."""
    for shared in (True, False):
        group = ProcessWorkerGroup(lambda: os.abort(), memory_budget=1000, timeout_s=60, shared=shared)
        with pytest.raises(SetupError, match="enough memory"):
            await group.wait_until_loaded()
        await group.close()


@pytest.mark.parametrize("shared", [True, False])
async def test_networks_that_cannot_be_loaded_are_reported_here(tmp_path: Path, shared: bool) -> None:
    settings = InferenceSettings(pack="opencv")
    load = partial(PipelineRegistry.load, settings, PhotoSettings(), WeightsStore())
    group = ProcessWorkerGroup(load, memory_budget=1000, timeout_s=60, shared=shared)
    with pytest.raises(WeightsError):
        await group.wait_until_loaded()
    await group.close()


@pytest.mark.parametrize("sent", [b"", b"\xc1", encode_message(Hello(1))[8:], pickle.dumps([NotAnImageError("")])])
async def test_a_worker_that_sends_anything_but_analyses_is_killed(
    group: ProcessWorkerGroup, space_id: str, sent: bytes
) -> None:
    worker = group.workers[0]
    worker._stop_watching()  # of the pool of another test
    os.kill(worker.pid, signal.SIGSTOP)
    connection = worker._socket
    assert connection is not None
    worker._socket, far = socket.socketpair()
    worker._socket.setblocking(False)
    far.sendall(LENGTH_HEADER.pack(len(sent)) + sent)

    with pytest.raises(WorkerEndedError, match="was stopped"):
        await worker.analyze_batch(space_id, [AnalysisRequest(b"photo")])
    far.close()
    connection.settimeout(5)
    assert connection.recv(1) == b""  # its process has ended
    connection.close()
    await worker.restart()


@pytest.mark.parametrize("difference", [-1, 1], ids=["fewer", "more"])
async def test_a_worker_that_returns_another_number_of_results_is_stopped(
    pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch, difference: int
) -> None:
    """Or a photo would get another one's faces."""

    def miscount(
        _pipelines: PipelineRegistry, _space_id: str, requests: Sequence[AnalysisRequest]
    ) -> list[Analysis | Exception]:
        return [NotAnImageError("no image")] * (len(requests) + difference)

    monkeypatch.setattr(processes, "run_batch", miscount)  # the processes forked from now on inherit it
    group = ProcessWorkerGroup(lambda: PipelineRegistry(pipeline), memory_budget=1000, timeout_s=60)
    space_id = (await group.wait_until_loaded()).default.id
    await group.start_workers(1)
    (worker,) = group.workers
    stopped = psutil.Process(worker.pid)
    requests = [AnalysisRequest(photo) for photo in (b"first", b"second")]

    with pytest.raises(WorkerEndedError, match="other photos"):
        await worker.analyze_batch(space_id, requests)

    await asyncio.to_thread(psutil.wait_procs, [stopped], 10)
    assert not stopped.is_running()
    await worker.close()
    await group.close()


async def test_a_worker_of_another_version_is_not_used(
    group: ProcessWorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.sendall(encode_message(Hello(1, version=1)))  # type: ignore[arg-type]

    async def fork_worker(_number: int) -> socket.socket:
        return near

    monkeypatch.setattr(group, "fork_worker", fork_worker)

    with pytest.raises(WorkerEndedError, match="unknown message"):
        await ProcessWorker(group, 0).restart()
    assert far.recv(1) == b""
    far.close()
