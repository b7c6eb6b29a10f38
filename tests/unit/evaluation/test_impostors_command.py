"""Matched impostors from folder to report, with a pipeline that reads texts instead of photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.reports import read_page
from typer.testing import CliRunner, Result

from vultus.cli import evaluate
from vultus.cli.app import app
from vultus.domain import Calibration


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, pipeline: Any) -> None:
    monkeypatch.setattr(evaluate, "open_pipeline", lambda *_, **__: pipeline)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """80 adults of one group and 20 children with one photo each, near two of the axes; one photo has no label."""
    root = tmp_path / "people"
    lines = ["path,age,sex,race"]
    for at in range(101):
        name = f"{at:03d}/{at:03d}.jpg"
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"person {at % 2} shift {0.02 * at}")
        lines += [f"{name},{4 if at >= 80 else 25},female,<s>x"] if at < 100 else []
    (root / "groups.csv").write_text("\n".join(lines))
    return root


def call(folder: Path, *words: object) -> Result:
    options = ["impostors", folder, "--groups", folder / "groups.csv", *words]
    return CliRunner().invoke(app, ["evaluate", *(str(word) for word in options)])


def test_matched_adults_and_children_are_reported(people: Path, tmp_path: Path) -> None:
    result = call(people, "--out", tmp_path / "report", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["schema"] == "vultus.evaluation.impostors/1"
    found = printed["result"]
    assert (found["adults"], found["pairs"], found["without_label"]) == (80, 80 * 79 // 2, 1)
    assert [(group["name"], group["pairs"]) for group in found["children"]] == [("0–5", 190)]
    assert {0.7, 0.8} <= {rates["threshold"] for rates in found["rates"]}
    assert all(rates["worst"] == "female 18–34 <s>x" for rates in found["rates"])
    text = read_page(tmp_path / "report")
    assert "Matched impostors on people" in text
    assert "female 18–34 &lt;s&gt;x" in text
    assert "<s>" not in text


def test_the_terminal_shows_the_worst_group(people: Path, tmp_path: Path) -> None:
    result = call(people, "--out", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "3,160 pairs of adults" in " ".join(result.stdout.split())


def test_a_pack_without_thresholds_is_measured(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Any
) -> None:
    monkeypatch.setattr(pipeline, "calibration", Calibration((), 0.0, "not measured"))

    result = call(people, "--out", tmp_path / "report", "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["stated"] == []
    assert "Threshold for FMR 10⁻²" in read_page(tmp_path / "report")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,age\n000/000.jpg,30", "missing: sex"),
        ("path,age,sex\n000/000.jpg,young,male", "whole number of years; found 'young'"),
        ("path,age,sex\n000/000.jpg,30,male", "No two photos show different adults"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(people: Path, tmp_path: Path, text: str, words: str) -> None:
    (people / "groups.csv").write_text(text)

    result = call(people, "--out", tmp_path / "report", "--json")

    assert result.exit_code == 2
    assert words in json.loads(result.stdout)["error"]["detail"]
    assert not (tmp_path / "report").exists()
