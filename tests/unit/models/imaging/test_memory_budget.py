"""The memory budget is never exceeded and starves nobody."""

from __future__ import annotations

import threading
import time

import pytest

from vultus.models.imaging.memory_budget import MemoryBudget


def test_bytes_are_released_also_after_a_failure() -> None:
    budget = MemoryBudget(10)

    with pytest.raises(KeyError), budget.reserve_bytes(7):
        assert budget.available == 3
        raise KeyError

    assert budget.available == 10


def test_a_photo_larger_than_the_budget_waits_until_it_is_alone() -> None:
    budget = MemoryBudget(10)

    with budget.reserve_bytes(99):
        assert budget.available == 0

    assert budget.available == 10


def test_many_threads_never_hold_more_than_the_budget() -> None:
    budget, held, most, lock = MemoryBudget(10), 0, 0, threading.Lock()

    def work(weight: int) -> None:
        nonlocal held, most
        for _ in range(20):
            with budget.reserve_bytes(weight):
                with lock:
                    held += weight
                    most = max(most, held)
                time.sleep(0.0002)
                with lock:
                    held -= weight

    threads = [threading.Thread(target=work, args=(weight,)) for weight in (1, 2, 3, 4, 7, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert 0 < most <= 10
    assert budget.available == 10


def test_a_large_photo_is_not_overtaken_by_small_ones() -> None:
    budget, order = MemoryBudget(10), list[str]()
    started = threading.Event()

    def work(name: str, weight: int) -> None:
        started.set()
        with budget.reserve_bytes(weight):
            order.append(name)

    large, small = (threading.Thread(target=work, args=args) for args in (("large", 10), ("small", 1)))
    with budget.reserve_bytes(5):
        large.start()
        started.wait(5)
        while not budget._waiting:
            time.sleep(0.001)
        small.start()
        time.sleep(0.05)
        assert order == []
    large.join(5)
    small.join(5)

    assert order == ["large", "small"]
