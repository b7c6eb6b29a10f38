"""Axes map values to positions; drawings are well-formed and escaped."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vultus.evaluation.charts import (
    FULL_WIDTH,
    Axis,
    ReferenceLine,
    Series,
    build_histogram_outline,
    build_logarithmic_axis,
    format_power_of_ten,
    render_chart,
)


def test_a_linear_axis_has_round_ticks_within_its_ends() -> None:
    values = [value for value, _ in Axis("x", 0.62, 1.0).list_ticks()]

    assert values == pytest.approx([0.7, 0.8, 0.9, 1.0])


def test_a_logarithmic_axis_has_a_tick_per_decade() -> None:
    assert [words for _, words in Axis("x", 1e-4, 1, is_logarithmic=True).list_ticks()] == [
        "10⁻⁴",
        "10⁻³",
        "10⁻²",
        "10⁻¹",
        "1",
    ]


@pytest.mark.parametrize(
    ("axis", "value", "place"),
    [
        (Axis("x", 0, 4), 1, 0.25),
        (Axis("x", 0, 4), 9, 1),
        (Axis("x", 0, 4), -9, 0),
        (Axis("x", 1e-4, 1, is_logarithmic=True), 1e-2, 0.5),
        (Axis("x", 1e-4, 1, is_logarithmic=True), 0, 0),
        (Axis("x", 3, 3), 3, 0.5),
    ],
)
def test_values_are_placed_between_the_ends(axis: Axis, value: float, place: float) -> None:
    assert axis.compute_position(value) == pytest.approx(place)


def test_an_axis_without_length_still_has_a_tick() -> None:
    assert Axis("x", 2, 2).list_ticks() == [(2, "2")]


def test_powers_are_written_with_superscripts() -> None:
    assert [format_power_of_ten(power) for power in (-12, 0, 3)] == ["10⁻¹²", "1", "10³"]


def test_a_histogram_is_outlined_bin_by_bin() -> None:
    assert build_histogram_outline([0, 1, 2], [0.3, 0.7]) == [(0, 0.3), (1, 0.3), (1, 0.7), (2, 0.7)]


def test_a_chart_is_well_formed_and_escapes_names() -> None:
    series = [
        Series("a < b & c", [(0, 0), (1, 1)], "genuine", has_area=True, highlights=[(0.5, 0.5, "<here>")]),
        Series("nothing", [], "impostor"),
    ]

    figure = render_chart(
        "5 > 4", Axis("x", 0, 1), Axis("y", 0, 1), series, [ReferenceLine(0.2, "left"), ReferenceLine(0.9, "right")]
    )

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
    assert build_logarithmic_axis("x", values, lower_bound=1e-5).low == pytest.approx(low)


def test_a_wide_chart_takes_a_row() -> None:
    figure = render_chart("wide", Axis("x", 0, 1, length=FULL_WIDTH), Axis("y", 0, 1), [])

    assert figure.startswith('<figure class="wide">')
