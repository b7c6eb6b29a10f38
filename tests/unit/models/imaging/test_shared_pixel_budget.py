"""Processes share one budget of pixels; what one of them held when it died is free again."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context

from vultus.models.imaging.pixel_budget import SharedPixelBudget

FORK = get_context("fork")


def hold(budget: SharedPixelBudget, pixels: int, seconds: float, told: object) -> None:
    with budget.hold(pixels):
        told.put((os.getpid(), time.monotonic()))  # type: ignore[attr-defined]
        time.sleep(seconds)


def test_processes_wait_for_room_and_inherit_what_the_dead_held() -> None:
    budget, told = SharedPixelBudget(640), FORK.Queue()
    holders = [FORK.Process(target=hold, args=(budget, 320, 60, told)) for _ in range(2)]
    for holder in holders:
        holder.start()
    for _ in holders:
        told.get(timeout=10)
    small = FORK.Process(target=hold, args=(budget, 10, 0, told))
    small.start()
    time.sleep(0.2)
    assert told.empty()

    killed = time.monotonic()
    assert holders[0].pid is not None
    os.kill(holders[0].pid, signal.SIGKILL)
    who, when = told.get(timeout=10)

    assert (who, when > killed) == (small.pid, True)
    small.join()
    large = FORK.Process(target=hold, args=(budget, 9999, 0, told))  # waits until it is alone
    large.start()
    time.sleep(0.2)
    assert told.empty()
    holders[1].kill()
    assert told.get(timeout=10)[0] == large.pid
    for process in (*holders, large):
        process.join()
