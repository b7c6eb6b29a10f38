"""How figures are counted, bounded, printed and kept; the figures themselves are in `test_short_figures.py`."""

from __future__ import annotations

import pytest
from chaos.__main__ import FIGURES
from chaos.outcome import Bar, Outcome, Plan

from chaos import record

PLAN = Plan(seed=1, short=True)


@pytest.mark.parametrize(
    ("tries", "failures", "bound"), [(200, 0, 0.0149), (20, 0, 0.139), (100, 2, 0.0616), (3, 3, 1.0)]
)
def test_the_bound_is_the_exact_binomial_one(tries: int, failures: int, bound: float) -> None:
    outcome = Outcome(tries=tries, failures=["failed"] * failures)

    assert outcome.compute_bound() == pytest.approx(bound, rel=0.01)


def test_a_slow_machine_fails_a_long_run_only() -> None:
    outcome = Outcome(tries=1, bars=[Bar("ready after s", 7.0, 5.0, timed=True)])

    assert outcome.is_passed(PLAN)
    assert not outcome.is_passed(Plan(seed=1, short=False))
    assert "7 (≤ 5, NOT HELD)" in outcome.render_line("F1", PLAN, 1.0)


def test_the_document_shows_the_stored_outcomes() -> None:
    assert f"<!-- {record.MARKER} -->\n{record.render_results(FIGURES)}\n<!-- /" in record.DOCUMENT.read_text()


def test_an_unseen_control_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="a planted fault"):
        Outcome().require_control(False, "a planted fault")
