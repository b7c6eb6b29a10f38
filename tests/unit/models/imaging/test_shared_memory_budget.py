"""Processes share one budget of memory; bytes held by a process that died are released."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context

from vultus.models.imaging.memory_budget import SharedMemoryBudget

FORK = get_context("fork")


def hold(budget: SharedMemoryBudget, size: int, seconds: float, acquired: object) -> None:
    with budget.reserve_bytes(size):
        acquired.put((os.getpid(), time.monotonic()))  # type: ignore[attr-defined]
        time.sleep(seconds)


def test_processes_wait_for_memory_and_that_of_dead_processes_are_released() -> None:
    budget, acquired = SharedMemoryBudget(640), FORK.Queue()
    holders = [FORK.Process(target=hold, args=(budget, 320, 60, acquired)) for _ in range(2)]
    for holder in holders:
        holder.start()
    for _ in holders:
        acquired.get(timeout=10)
    small = FORK.Process(target=hold, args=(budget, 10, 0, acquired))
    small.start()
    time.sleep(0.2)
    assert acquired.empty()

    killed = time.monotonic()
    assert holders[0].pid is not None
    os.kill(holders[0].pid, signal.SIGKILL)
    who, when = acquired.get(timeout=10)

    assert (who, when > killed) == (small.pid, True)
    small.join()
    large = FORK.Process(target=hold, args=(budget, 9999, 0, acquired))  # waits until it is alone
    large.start()
    time.sleep(0.2)
    assert acquired.empty()
    holders[1].kill()
    assert acquired.get(timeout=10)[0] == large.pid
    for process in (*holders, large):
        process.join()
