"""Threads: never more busy ones than cores; one caller uses all cores only while it is alone."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CPU_QUOTA_PATH = Path("/sys/fs/cgroup/cpu.max")
"""CPU quota of the container: quota and period in microseconds."""

_is_alone: ContextVar[Callable[[], bool] | None] = ContextVar("is_alone", default=None)


@cache
def count_usable_cores(quota: Path = CPU_QUOTA_PATH) -> int:
    """Return how many cores this process may use: by its affinity, and by its container's quota, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
    except (OSError, ValueError):
        return count
    return count if allowed == "max" else min(count, math.ceil(int(allowed) / int(period)))


def limit_threads() -> None:
    """Disable OpenCV's threads: workers provide the parallelism, and other threads would only compete with them.

    NumPy's BLAS library starts its threads when it is loaded; the package's `__init__` limits it to one.
    """
    cv2.setNumThreads(1)


@contextmanager
def use_all_cores(is_alone: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Let networks that this thread runs inside the block use every core.

    Args:
        is_alone: Called before every network call; returns whether the cores are free of other work. A call that has
            started keeps them until it ends, some tens of milliseconds at most.
    """
    token = _is_alone.set(is_alone)
    try:
        yield
    finally:
        _is_alone.reset(token)


def may_use_all_cores() -> bool:
    """Return whether the calling thread is inside `use_all_cores` and still alone."""
    is_alone = _is_alone.get()
    return is_alone is not None and is_alone()
