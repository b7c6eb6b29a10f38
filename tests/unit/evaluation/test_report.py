"""Reports are replaced atomically, and contain only JSON values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vultus.evaluation.datasets import read_person_folders
from vultus.evaluation.gallery import evaluate_gallery
from vultus.evaluation.identification import split_gallery
from vultus.evaluation.provenance import build_provenance
from vultus.evaluation.record import GalleryReport, build_evaluation_context
from vultus.evaluation.report import build_summary, to_json_values, write_report
from vultus.evaluation.runner import describe_photos


def made(folder: Path, pipeline: Any) -> GalleryReport:
    data = read_person_folders(folder)
    parts = split_gallery(data, enrol=1, held_out=0.5, seed=0)
    described = describe_photos(pipeline, data, workers=1)
    source = build_provenance(pack="fake", contract_id="fake-1", command="vultus evaluate gallery people")
    return GalleryReport(
        build_evaluation_context(data, described, source), 1, 0.5, 0, evaluate_gallery(data, parts, described, pipeline)
    )


def test_a_later_report_replaces_an_earlier_one(folder: Path, tmp_path: Path, pipeline: Any) -> None:
    target = tmp_path / "a/b"
    target.mkdir(parents=True)
    (target / "report.json").write_text("old" * 100_000)

    page = write_report(made(folder, pipeline), target)

    assert page == target / "report.html"
    assert json.loads((target / "report.json").read_text())["seed"] == 0


def test_a_summary_is_the_report_without_plot_data(folder: Path, pipeline: Any) -> None:
    report = made(folder, pipeline)

    whole, short = to_json_values(report), build_summary(report)

    assert set(whole["result"]) - set(short["result"]) == {"drawing", "cmc"}
    assert {key: whole[key] for key in whole if key != "result"} == {
        key: short[key] for key in short if key != "result"
    }


def test_the_data_set_is_named_not_located(folder: Path, pipeline: Any) -> None:
    report = made(folder, pipeline)

    assert report.evaluated.data == "people"
    assert str(folder) not in json.dumps(to_json_values(report))
