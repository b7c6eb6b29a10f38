"""Durations of a request's stages: recorded where they run, reported in its `Server-Timing` header."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


def collect_stages() -> dict[str, float]:
    """Start collecting the stages of this context and its tasks; return the collection, milliseconds by stage."""
    stages: dict[str, float] = {}
    _stages.set(stages)
    return stages


def record_stages(taken_ms: Mapping[str, float]) -> None:
    """Add the stages of a photo, in milliseconds, to those of the request."""
    collected = _stages.get()
    for stage, ms in taken_ms.items():
        metrics.get_labelled(metrics.STAGE_SECONDS, stage).observe(ms / 1e3)
        if collected is not None:
            collected[stage] = collected.get(stage, 0.0) + ms


@contextmanager
def measure_stage(name: str) -> Iterator[None]:
    """Record the duration of the block."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record_stages({name: (time.perf_counter() - started) * 1e3})


def format_server_timing(stages: Mapping[str, float], total_ms: float) -> str:
    """Return the value of a `Server-Timing` header (W3C Server Timing): stages in milliseconds, then their total."""
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in [*stages.items(), ("total", total_ms)])
