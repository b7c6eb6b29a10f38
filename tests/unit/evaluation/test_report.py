"""Reports are replaced whole, and hold nothing JSON cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vultus.evaluation.datasets import read_folders
from vultus.evaluation.gallery import evaluate_gallery
from vultus.evaluation.identification import split
from vultus.evaluation.provenance import provenance
from vultus.evaluation.record import GalleryReport, evaluated
from vultus.evaluation.report import as_json, summary, write
from vultus.evaluation.runner import describe_all


def made(folder: Path, pipeline: Any) -> GalleryReport:
    data = read_folders(folder)
    parts = split(data, enrol=1, held_out=0.5, seed=0)
    described = describe_all(pipeline, data, workers=1)
    source = provenance(pack="fake", contract_id="fake-1", command="vultus evaluate gallery people")
    return GalleryReport(
        evaluated(data, described, source), 1, 0.5, 0, evaluate_gallery(data, parts, described, pipeline)
    )


def test_a_later_report_replaces_an_earlier_one(folder: Path, tmp_path: Path, pipeline: Any) -> None:
    target = tmp_path / "a/b"
    target.mkdir(parents=True)
    (target / "report.json").write_text("old" * 100_000)

    page = write(made(folder, pipeline), target)

    assert page == target / "report.html"
    assert json.loads((target / "report.json").read_text())["seed"] == 0


def test_a_summary_is_the_whole_without_what_is_only_drawn(folder: Path, pipeline: Any) -> None:
    report = made(folder, pipeline)

    whole, short = as_json(report), summary(report)

    assert set(whole["result"]) - set(short["result"]) == {"drawing", "cmc"}
    assert {key: whole[key] for key in whole if key != "result"} == {
        key: short[key] for key in short if key != "result"
    }


def test_the_data_set_is_named_not_located(folder: Path, pipeline: Any) -> None:
    report = made(folder, pipeline)

    assert report.evaluated.data == "people"
    assert str(folder) not in json.dumps(as_json(report))
