"""Formatting of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from jinja2 import UndefinedError
from markupsafe import Markup

from vultus.evaluation.page import (
    TEMPLATES,
    format_cosine,
    format_interval,
    format_percent,
    format_scientific,
    format_share,
    format_small_rate,
    render_page,
)
from vultus.evaluation.runner import PhotoFailure
from vultus.statistics.intervals import Mean, Rate

PARTS: Any = TEMPLATES.get_template("parts.html").module
RATE = Rate(0.5, 0.25, 0.75, 2, 4, "made up")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (1, "1"),
        (1e-4, "10⁻⁴"),
        (2.13e-4, "2.1·10⁻⁴"),
        (9.99e-4, "10⁻³"),
        (9.8765e-5, "9.9·10⁻⁵"),
        (0.1, "10⁻¹"),
    ],
)
def test_rates_are_written_with_their_power(value: float, words: str) -> None:
    assert format_scientific(value) == words


def test_shares_are_written_in_percent_with_their_interval() -> None:
    assert format_percent(0.99183) == "99.18 %"
    assert format_share(RATE) == "50.00 % <small>25.00–75.00</small>"
    assert format_share(None) == format_small_rate(None) == format_cosine(None) == "–"


def test_small_intervals_get_more_digits() -> None:
    assert format_interval(Rate(1e-5, 5e-6, 2e-5, 1, 100_000, "made up")) == "0.0005–0.0020"


def test_the_interval_of_a_mean_is_cut_where_shares_end() -> None:
    assert format_interval(Mean(0.99, 0.01, 0.97, 1.01, 10)) == "97.00–100.00"


def test_small_rates_name_their_counts() -> None:
    assert format_small_rate(RATE) == "5.0·10⁻¹ <small>2.5·10⁻¹–7.5·10⁻¹ · 2 of 4</small>"


def test_cells_are_escaped_unless_they_are_markup() -> None:
    made = PARTS.table(("<a>",), [("<b>", Markup("<i>c</i>"))])

    assert "&lt;a&gt;" in made
    assert "&lt;b&gt;" in made
    assert "<i>c</i>" in made


def test_names_of_photos_are_escaped() -> None:
    assert "&lt;script&gt;" in PARTS.failures([PhotoFailure("<script>/1.jpg", "no_face")])
    assert "Every photo" in PARTS.failures([])


def test_a_page_is_self_contained() -> None:
    made = render_page("page.html", "a & b", "lead", [("<tile>", "1 %", "<small> · print")], ["<svg></svg>"])

    assert "<title>a &amp; b</title>" in made
    assert "<h1>a &amp; b</h1>" in made
    assert "<span>&lt;tile&gt;</span><b>1 %</b><small>&lt;small&gt;<br>print</small>" in made
    assert "<svg></svg>" in made
    assert "--page: #f6f7f9" in made
    assert not any(word in made for word in ("http:", "https:", "<script", "<link", "src=", "@import", "url("))


def test_a_value_that_a_template_lacks_is_refused() -> None:
    with pytest.raises(UndefinedError, match="report"):
        render_page("pairs.html", "title", "lead", [], [])


def test_the_wheel_contains_the_templates() -> None:
    root = Path(__file__).parents[3]

    packed = {file.distribution_path for file in WheelBuilder(str(root)).recurse_included_files()}

    templates = TEMPLATES.list_templates()
    assert "pairs.html" in templates
    assert {f"vultus/evaluation/templates/{name}" for name in templates} <= packed
