"""Durations of a request's stages: recorded where they run, reported in its `Server-Timing` header."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vultus.utils import metrics
from vultus.utils.request_scope import find_scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def record_stages(taken_ms: Mapping[str, float]) -> None:
    """Add the stages of a photo, in milliseconds, to those of the request."""
    scope = find_scope()
    for stage, ms in taken_ms.items():
        metrics.get_labelled(metrics.STAGE_SECONDS, stage).observe(ms / 1e3)
        if scope is not None:
            scope.stages[stage] = scope.stages.get(stage, 0.0) + ms


@contextmanager
def measure_stage(name: str) -> Iterator[None]:
    """Record the duration of the block."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record_stages({name: (time.perf_counter() - started) * 1e3})
