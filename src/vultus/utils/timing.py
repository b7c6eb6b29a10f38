"""How long the stages of a request took: collected where they happen, told in its `Server-Timing` header."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


def collect() -> dict[str, float]:
    """Collect from now on what this context and its tasks record; return where, milliseconds by stage."""
    stages: dict[str, float] = {}
    _stages.set(stages)
    return stages


def record(taken_ms: Mapping[str, float]) -> None:
    """Add the stages of a photo to those of the request."""
    collected = _stages.get()
    for stage, ms in taken_ms.items():
        metrics.of(metrics.STAGE_SECONDS, stage).observe(ms / 1e3)
        if collected is not None:
            collected[stage] = collected.get(stage, 0.0) + ms


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Record how long the block took."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record({name: (time.perf_counter() - started) * 1e3})


def header(stages: Mapping[str, float], total_ms: float) -> str:
    """Return the value of a `Server-Timing` header (W3C Server Timing): stages in milliseconds, then their total."""
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in [*stages.items(), ("total", total_ms)])
