"""Both commands from folder to report, with a pipeline that reads texts instead of photos."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from vultus.cli import evaluate

VOID = {"meta", "line", "path", "circle", "br"}


class Nesting(HTMLParser):
    """Fails where a tag is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, pipeline: Any) -> None:
    monkeypatch.setattr(evaluate, "open_pipeline", lambda _settings, _pack, calibrated=True: pipeline)


def call(*words: object) -> Result:
    return CliRunner().invoke(evaluate.app, [str(word) for word in words])


def page(folder: Path) -> str:
    text = (folder / "report.html").read_text(encoding="utf-8")
    parser = Nesting()
    parser.feed(text)
    assert parser.open == []
    assert not {"img", "image", "script", "link"} & set(parser.seen)
    assert "http" not in text
    return text


def test_pairs_writes_a_report_and_prints_its_figures(folder: Path, tmp_path: Path) -> None:
    result = call("pairs", folder, "--out", tmp_path / "report", "--json", "--workers", 2)

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    stored = json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8"))
    assert printed["schema"] == stored["schema"] == "vultus.evaluation.pairs/1"
    assert printed["listed"]["accuracy"]["accuracy"]["value"] == 1
    assert printed["all"]["impostor"] == 246
    assert printed["evaluated"]["failures"] == [
        {"photo": "person_0/person_0_0003.jpg", "code": "no_face"},
        {"photo": "person_1/person_1_0004.jpg", "code": "not_an_image"},
    ]
    assert "drawing" not in printed["all"]
    assert stored["all"]["drawing"]["curve"]


def test_thresholds_are_kept_for_the_pack_that_was_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VULTUS_DATA_DIR", str(tmp_path))

    result = call("pairs", folder, "--out", tmp_path / "report", "--pack", "mine", "--keep", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    kept = json.loads((tmp_path / "models/calibrations/fake-1.json").read_text(encoding="utf-8"))
    assert kept["points"] == [[0.1, printed["all"]["points"][0]["threshold"]]]
    assert "--pack mine" in printed["evaluated"]["provenance"]["command"]


def test_the_page_of_pairs_is_whole(folder: Path, tmp_path: Path) -> None:
    result = call("pairs", folder, "--out", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "accuracy, mean of folds" in result.stdout
    text = page(tmp_path / "report")
    for words in ("Verification on people", "Receiver operating", "Detection error", "person_0/person_0_0003.jpg"):
        assert words in text


def test_pairs_needs_no_list(folder: Path, tmp_path: Path) -> None:
    (folder / "pairs.txt").unlink()

    result = call("pairs", folder, "--out", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "Listed pairs" not in page(tmp_path / "report")


def test_only_listed_photos_are_described_on_demand(folder: Path, tmp_path: Path) -> None:
    moved = folder / "pairs.txt"
    moved = moved.rename(tmp_path / "list.txt")

    result = call("pairs", folder, "--pairs", moved, "--listed-only", "--out", tmp_path / "report", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["evaluated"]["photos"] == 14
    assert printed["listed"]["accuracy"]["pooled"]["hits"] == 12
    assert "--listed-only" in printed["evaluated"]["provenance"]["command"]


def test_a_faulty_list_is_told_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    (folder / "pairs.txt").write_text("2\t3\nperson_0 1\n")

    result = call("pairs", folder, "--out", tmp_path / "report", "--json")

    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "invalid_input"
    assert not (tmp_path / "report").exists()


def test_a_single_person_cannot_be_evaluated(tmp_path: Path) -> None:
    (tmp_path / "people/ada").mkdir(parents=True)
    (tmp_path / "people/ada/1.jpg").write_text("person 0 shift 0")

    result = call("pairs", tmp_path / "people", "--out", tmp_path / "report")

    assert result.exit_code == 2
    assert "too small" in result.stderr


def test_gallery_writes_a_report_and_prints_its_figures(folder: Path, tmp_path: Path) -> None:
    words = ("gallery", folder, "--out", tmp_path / "report", "--seed", 5)
    result = call(*words, "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["schema"] == "vultus.evaluation.gallery/1"
    assert printed["result"]["mate_persons"] == 3
    assert printed["result"]["enrolled_persons"] == 4
    assert "cmc" not in printed["result"]
    again = json.loads(call(*words, "--json").stdout)
    assert again["result"] == printed["result"]


def test_the_page_of_the_gallery_is_whole(folder: Path, tmp_path: Path) -> None:
    result = call("gallery", folder, "--out", tmp_path / "report", "--held-out", 0.4)

    assert result.exit_code == 0, result.output
    assert "mate within rank 1" in result.stdout
    text = page(tmp_path / "report")
    for words in ("Identification on people", "Cumulative match", "The default decision", "a wrong person"):
        assert words in text


def test_too_few_persons_for_a_gallery_are_told(folder: Path, tmp_path: Path) -> None:
    result = call("gallery", folder, "--enrol", 9, "--out", tmp_path / "report")

    assert result.exit_code == 2
    assert "too few" in result.stderr
