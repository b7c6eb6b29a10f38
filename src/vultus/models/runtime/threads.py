"""Threads: never more busy ones than cores, and all cores for one caller only while nobody else wants them."""

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

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""A container's share of the processor: microseconds it may run in so many microseconds."""

_alone: ContextVar[Callable[[], bool] | None] = ContextVar("alone", default=None)


@cache
def usable_cores(quota: Path = QUOTA) -> int:
    """Return how many cores this process may use: by its affinity, and by its container's quota, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
    except (OSError, ValueError):
        return count
    return count if allowed == "max" else min(count, math.ceil(int(allowed) / int(period)))


def limit_threads() -> None:
    """Keep OpenCV from threads of its own: workers are the parallelism, others would only compete with them.

    The BLAS library under NumPy starts its threads when it is loaded; the package's own first line holds it to one.
    """
    cv2.setNumThreads(1)


@contextmanager
def all_cores(alone: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Let networks that this thread runs inside the block use every core.

    Args:
        alone: Asked before every network call: whether nobody else wants the cores now. A call that has begun keeps
            them until it ends, some tens of milliseconds at most.
    """
    token = _alone.set(alone)
    try:
        yield
    finally:
        _alone.reset(token)


def may_use_all_cores() -> bool:
    """Say whether the calling thread is inside `all_cores` and still alone."""
    alone = _alone.get()
    return alone is not None and alone()
