"""Axes put values where they belong; drawings are whole and escaped."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vultus.evaluation.charts import WIDE, Axis, Mark, Series, chart, decades, power_of_ten, steps


def test_a_linear_axis_has_round_ticks_within_its_ends() -> None:
    values = [value for value, _ in Axis("x", 0.62, 1.0).ticks()]

    assert values == pytest.approx([0.7, 0.8, 0.9, 1.0])


def test_a_logarithmic_axis_has_a_tick_a_decade() -> None:
    assert [words for _, words in Axis("x", 1e-4, 1, log=True).ticks()] == ["10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "1"]


@pytest.mark.parametrize(
    ("axis", "value", "place"),
    [
        (Axis("x", 0, 4), 1, 0.25),
        (Axis("x", 0, 4), 9, 1),
        (Axis("x", 0, 4), -9, 0),
        (Axis("x", 1e-4, 1, log=True), 1e-2, 0.5),
        (Axis("x", 1e-4, 1, log=True), 0, 0),
        (Axis("x", 3, 3), 3, 0.5),
    ],
)
def test_values_are_placed_between_the_ends(axis: Axis, value: float, place: float) -> None:
    assert axis.place(value) == pytest.approx(place)


def test_an_axis_without_length_still_has_a_tick() -> None:
    assert Axis("x", 2, 2).ticks() == [(2, "2")]


def test_powers_are_written_as_people_do() -> None:
    assert [power_of_ten(power) for power in (-12, 0, 3)] == ["10⁻¹²", "1", "10³"]


def test_a_histogram_is_outlined_bin_by_bin() -> None:
    assert steps([0, 1, 2], [0.3, 0.7]) == [(0, 0.3), (1, 0.3), (1, 0.7), (2, 0.7)]


def test_a_chart_is_well_formed_and_escapes_names() -> None:
    series = [
        Series("a < b & c", [(0, 0), (1, 1)], "genuine", filled=True, dots=[(0.5, 0.5, "<here>")]),
        Series("nothing", [], "impostor"),
    ]

    figure = chart("5 > 4", Axis("x", 0, 1), Axis("y", 0, 1), series, [Mark(0.2, "left"), Mark(0.9, "right")])

    root = ElementTree.fromstring(figure)
    assert [path.get("class") for path in root.iter("path")] == ["area genuine", "line genuine"]
    assert [words.text for words in root.iter("title")] == ["<here>"]
    assert root.find("svg").get("aria-label") == "5 > 4"  # type: ignore[union-attr]
    anchors = [words.get("text-anchor") for words in root.iter("text") if words.text in {"left", "right"}]
    assert anchors == ["start", "end"]


@pytest.mark.parametrize(
    ("values", "low"),
    [([0.0, 3e-3, 0.5], 1e-3), ([1e-3], 1e-3), ([1e-9], 1e-5), ([0.7], 0.1), ([0.0], 0.1), ([], 0.1)],
)
def test_an_axis_of_decades_starts_at_the_power_of_ten_below(values: list[float], low: float) -> None:
    assert decades("x", values, least=1e-5).low == pytest.approx(low)


def test_a_wide_chart_takes_a_row() -> None:
    figure = chart("wide", Axis("x", 0, 1, length=WIDE), Axis("y", 0, 1), [])

    assert figure.startswith('<figure class="wide">')
