"""Metrics cost the server little, however often they are asked for."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from vultus.api import metrics


async def test_metrics_that_many_ask_for_at_once_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    render = Mock(return_value=(b"vultus_persons 1\n", "text/plain"))
    monkeypatch.setattr(metrics, "render_metrics", render)
    cache = metrics.MetricsCache()

    answers = await asyncio.gather(*(cache.render() for _ in range(50)))

    assert set(answers) == {(b"vultus_persons 1\n", "text/plain")}
    assert render.call_count == 1
