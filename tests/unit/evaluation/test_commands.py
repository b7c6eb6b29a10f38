"""Both commands from folder to report, with a pipeline that reads texts instead of photos."""

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


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(word) for word in words)])


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


def test_the_page_of_pairs_is_whole(folder: Path, tmp_path: Path) -> None:
    result = call("pairs", folder, "--out", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "accuracy, mean of folds" in result.stdout
    text = read_page(tmp_path / "report")
    for words in ("Verification on people", "Receiver operating", "Detection error", "person_0/person_0_0003.jpg"):
        assert words in text


def test_pairs_needs_no_list(folder: Path, tmp_path: Path) -> None:
    (folder / "pairs.txt").unlink()

    result = call("pairs", folder, "--out", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "Listed pairs" not in read_page(tmp_path / "report")


def test_only_listed_photos_are_described_on_demand(folder: Path, tmp_path: Path) -> None:
    moved = folder / "pairs.txt"
    moved = moved.rename(tmp_path / "list.txt")

    result = call("pairs", folder, "--pairs", moved, "--listed-only", "--out", tmp_path / "report", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["evaluated"]["photos"] == 14
    assert printed["listed"]["accuracy"]["pooled"]["hits"] == 12
    assert "--listed-only" in printed["evaluated"]["provenance"]["command"]


def test_a_faulty_list_is_reported_before_anything_runs(folder: Path, tmp_path: Path) -> None:
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
    text = read_page(tmp_path / "report")
    for words in ("Identification on people", "Cumulative match", "The default decision", "a wrong person"):
        assert words in text


def test_too_few_persons_for_a_gallery_are_reported(folder: Path, tmp_path: Path) -> None:
    result = call("gallery", folder, "--enrol", 9, "--out", tmp_path / "report")

    assert result.exit_code == 2
    assert "too few" in result.stderr


def test_the_mean_of_templates_is_a_choice(folder: Path, tmp_path: Path) -> None:
    words = ("gallery", folder, "--out", tmp_path / "report", "--enrol", 2)
    best, mean = (json.loads(call(*words, "--fusion", fusion, "--json").stdout) for fusion in ("best", "mean"))

    assert (best["fusion"], mean["fusion"]) == ("best", "mean")
    assert "--fusion mean" in mean["evaluated"]["provenance"]["command"]
    assert mean["result"]["verification"][-1]["threshold"] == 0.8
    assert mean["result"]["verification"][-1]["tar"]["value"] >= best["result"]["verification"][-1]["tar"]["value"]
    assert "cosine to the mean of the templates" in read_page(tmp_path / "report")


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "groups.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_pairs_reports_by_group(folder: Path, tmp_path: Path) -> None:
    lines = [f"person_{at},{['old', 'young'][at % 2]},{'x' if at else ''}" for at in range(7)]
    groups = table(tmp_path, "person,age,site", *lines[:6], 'person_6,"young",y')

    result = call("pairs", folder, "--groups", groups, "--out", tmp_path / "report", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    age, site = printed["groups"]
    assert [(group["name"], group["persons"], group["faces"]) for group in age["groups"]] == [
        ("old", 3, 11),
        ("young", 4, 12),
    ]
    assert (age["without_group"], site["without_group"]) == (1, 2)
    # Persons 0, 2 and 4 have 18 pairs of photos, 3 of them with the photo of person 0 that shows no face.
    assert [rate["fnmr"]["hits"] for rate in age["groups"][0]["rates"]] == [3, 3]
    assert age["groups"][0]["rates"][0]["fmr_resolved"] is False
    assert "--groups" in printed["evaluated"]["provenance"]["command"]
    text = read_page(tmp_path / "report")
    assert "By age" in text
    assert "too small to be resolved" in text


def test_the_terminal_shows_groups_too(folder: Path, tmp_path: Path) -> None:
    groups = table(tmp_path, "person,age", "person_0,old", "person_1,young")

    result = call("pairs", folder, "--groups", groups, "--out", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "By age" in result.stdout


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["name,age", "person_0,old"], "line 1: expected 'person' or 'path'"),
        (["person", "person_0"], "line 1: expected 'person' or 'path'"),
        (["person,age,age", "person_0,old,old"], "each once"),
        (["person,age", "person_0,old", "nobody,old"], "line 3: person 'nobody' has no folder"),
        (["person,age", "person_0,old", "person_0,young"], "line 3: person 'person_0' is listed twice"),
        (["person,age", "person_0"], "line 2: expected 2 fields; found 1"),
        (["person,age", "person_0,old", "person_1,"], "'age' divides the persons with faces into 1 groups"),
    ],
)
def test_a_table_of_groups_that_cannot_be_used_is_refused_with_the_reason(
    folder: Path, tmp_path: Path, lines: list[str], words: str
) -> None:
    result = call("pairs", folder, "--groups", table(tmp_path, *lines), "--out", tmp_path / "report", "--json")

    assert result.exit_code == 2
    assert words in json.loads(result.stdout)["error"]["detail"]


def test_a_pack_without_thresholds_is_measured_and_its_groups_are_reported_later(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Any
) -> None:
    monkeypatch.setattr(pipeline, "calibration", Calibration((), 0.0, "not measured"))
    groups = tmp_path / "groups.csv"
    persons = sorted(path.name for path in folder.iterdir() if path.is_dir())
    rows = [f"{person},{'one' if at % 2 else 'other'}" for at, person in enumerate(persons)]
    groups.write_text("\n".join(["person,half", *rows]), encoding="utf-8")

    measured = call("pairs", folder, "--out", tmp_path / "report")
    refused = call("pairs", folder, "--out", tmp_path / "other", "--groups", groups)

    assert measured.exit_code == 0, measured.output
    assert (refused.exit_code, "--keep first" in " ".join(refused.output.split())) == (2, True)


@pytest.mark.parametrize("command", ["pairs", "gallery"])
def test_hostile_names_are_text_on_the_page(command: str, folder: Path, tmp_path: Path) -> None:
    hostile = "<img src=x onerror='alert(1)'>{{ 7 * 7 }}"
    escaped = "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;{{ 7 * 7 }}"
    root = folder.rename(tmp_path / f"{hostile} data")
    (root / "pairs.txt").unlink()
    for name in ("person_0", "person_1"):
        (root / name).rename(root / f"{name} {hostile}")
    groups = table(tmp_path, f"person,{hostile}", *(f"person_{at},<s>{at % 2}" for at in range(2, 7)))

    options = ("--groups", groups) if command == "pairs" else ()
    result = call(command, root, "--out", tmp_path / "report", *options)

    assert result.exit_code == 0, result.output
    text = read_page(tmp_path / "report")
    assert "<img" not in text
    assert "<s>" not in text
    assert f"{escaped} data</h1>" in text
    assert f"<th>person_0 {escaped}/person_0_0003.jpg</th>" in text
    if command == "pairs":
        assert f"<h2>By {escaped}</h2>" in text
        assert "<th>&lt;s&gt;0</th>" in text


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """24 persons with one photo each, near three of the axes."""
    root = tmp_path / "strangers"
    for at in range(24):
        (root / f"{at:02d}").mkdir(parents=True)
        (root / f"{at:02d}/{at:02d}.jpg").write_text(f"person {at % 3} shift {0.1 * at}")
    return root


def test_a_data_set_without_pairs_of_one_person_has_false_match_rates_only(strangers: Path, tmp_path: Path) -> None:
    groups = table(
        tmp_path, "path,side", *(f"{at:02d}/{at:02d}.jpg,{'left' if at < 12 else 'right'}" for at in range(24))
    )
    words = ("pairs", strangers, "--groups", groups, "--out", tmp_path / "report")

    printed = json.loads(call(*words, "--json").stdout)
    shown = call(*words)

    pairs = printed["all"]
    assert (pairs["genuine"], pairs["impostor"], pairs["auc"], pairs["equal_error"]) == (0, 276, None, None)
    assert [check["tar"] for check in pairs["calibration"]] == [None, None]
    assert all(check["fmr"]["hits"] > 0 for check in pairs["calibration"])
    left, right = printed["groups"][0]["groups"]
    assert (left["persons"], right["persons"]) == (12, 12)
    assert left["rates"][0]["fmr"]["trials"] == 66
    assert left["rates"][0]["fnmr"] is None
    assert "none: false match rates only" in shown.stdout
    text = read_page(tmp_path / "report")
    assert "nothing is said about true accept rates" in text
    assert "Receiver operating" not in text
