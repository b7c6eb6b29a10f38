"""Every figure of `python -m chaos` in its short form: what must hold, not how fast."""

from __future__ import annotations

import shutil

import pytest
from chaos.__main__ import FIGURES, measure_figure
from chaos.outcome import Plan

pytestmark = pytest.mark.usefixtures("unmeasured", "unmeasured_processes")

PLAN = Plan(seed=1, short=True)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_hold(name: str) -> None:
    if name == "F2" and not shutil.which("strace"):
        pytest.skip("F2 needs strace, a package of most distributions")
    outcome, _ = measure_figure(name, PLAN)

    assert outcome.tries > 0
    assert outcome.failures == []
    assert outcome.is_passed(PLAN), outcome.bars
