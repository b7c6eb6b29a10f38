"""From folders of photos to a report, with networks that measure brightness only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faces import encoded
from tests.reports import read_page
from tests.unit.evaluation.conftest import FakePipeline, face
from tests.unit.evaluation.test_commands import call

from vultus.cli import evaluate
from vultus.domain import DETECTION, EMBEDDINGS, Analysis, Box, DetectedFace, Liveness, LivenessReason, Pixels, Want
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.settings import PhotoSettings

WIDTH, HEIGHT = 60, 40
FACE = Box(10, 10, 30, 30)


class Finder(FakePipeline):
    """Finds one face in every photo that is not black."""

    def analyze_photo(self, photo: bytes, want: Want = EMBEDDINGS) -> Analysis:
        assert want == DETECTION
        pixels = EncodedPhoto.open(photo, PhotoSettings()).decode(WIDTH).pixels
        return Analysis(WIDTH, HEIGHT, "", (face([1], FACE),) if pixels.max() > 9 else ())


class Brightness:
    """Classifies bright photos as live."""

    def assess_liveness(self, pixels: Pixels, face: DetectedFace) -> Liveness:
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert face.box == FACE
        score = float(pixels.mean()) / 255
        return Liveness(score, LivenessReason.LIVE if score >= 0.5 else LivenessReason.SPOOF)


@pytest.fixture
def presentations(tmp_path: Path) -> Path:
    """Four live photos, one of them dark and one black; eight of attacks, one of them bright."""
    levels = {"live": (200, 210, 90, 0), "spoof/print": (20, 30, 40, 220), "spoof/screen": (20, 30, 40, 50)}
    for folder, greys in levels.items():
        (tmp_path / "shots" / folder).mkdir(parents=True)
        for at, grey in enumerate(greys):
            photo = encoded(np.full((HEIGHT, WIDTH, 3), grey, np.uint8))
            (tmp_path / "shots" / folder / f"{at}.jpg").write_bytes(photo)
    return tmp_path / "shots"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "open_pipeline", lambda *_, **__: Finder())

    def open_liveness(_settings: object, name: str) -> evaluate.OpenedLiveness:
        return evaluate.OpenedLiveness(name, Brightness(), {"network.pth": "0" * 64})

    monkeypatch.setattr(evaluate, "open_liveness", open_liveness)


def report_of(presentations: Path, *words: object) -> Any:
    out = presentations.parent / "report"
    result = call("liveness", presentations, "--out", out, "--json", *words)
    assert result.exit_code == 0, result.output
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert stored["result"].pop("drawing")["curve"]
    assert json.loads(result.stdout) == stored
    return stored


def test_liveness_writes_a_report_and_prints_its_figures(presentations: Path) -> None:
    report = report_of(presentations)

    assert report["schema"] == "vultus.evaluation.liveness/1"
    assert report["photos"] == {"live": 4, "spoof/print": 4, "spoof/screen": 4}
    assert report["failures"] == [{"photo": "live/3.jpg", "code": "no_face"}]
    point = report["result"]["default"]
    assert (point["threshold"], point["worst"], point["apcer"]["spoof/print"]["value"]) == (0.5, "spoof/print", 0.25)
    assert point["bpcer"]["value"] == pytest.approx(1 / 3)
    assert report["networks"] == {"network.pth": "0" * 64}


def test_another_threshold_gives_other_errors(presentations: Path) -> None:
    report = report_of(presentations, "--threshold", 0.3)

    assert report["result"]["default"]["bpcer"]["value"] == 0
    assert report["provenance"]["command"].endswith("--threshold 0.3")


def test_several_networks_are_measured_in_one_run(presentations: Path) -> None:
    out = presentations.parent / "report"
    words = [word for name in ("one", "other") for word in ("--network", name)]

    result = call("liveness", presentations, "--out", out, "--json", *words)

    assert result.exit_code == 0, result.output
    assert [report["network"] for report in json.loads(result.stdout)] == ["one", "other"]
    for name in ("one", "other"):
        assert f"{name}, pack" in read_page(out / name)


def test_photos_without_any_face_are_refused(presentations: Path) -> None:
    for photo in presentations.rglob("*.jpg"):
        photo.write_bytes(encoded(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))

    result = call("liveness", presentations, "--out", presentations.parent / "report")

    assert result.exit_code == 2
    assert "No face was found in any of the 12 photos" in result.stderr


def test_the_page_of_liveness_is_whole(presentations: Path) -> None:
    out = presentations.parent / "report"

    result = call("liveness", presentations, "--out", out)

    assert result.exit_code == 0, result.output
    assert "APCER, spoof/screen, equal error" in result.stdout
    text = read_page(out)
    for words in ("Presentation attack detection on shots", "Detection error", "worst: spoof/print", "live/3.jpg"):
        assert words in text
