"""A data set whose photos are short texts, and a pipeline that reads them: networks are not under test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vultus.domain import (
    EMBEDDINGS,
    Analysis,
    Box,
    Calibration,
    DescribedFace,
    DetectedFace,
    Embedding,
    Quality,
    QualityRule,
    Want,
)
from vultus.errors import NotAnImageError

SIDE = 250
RULE = QualityRule(min_score=0.5, min_size_px=10, min_sharpness=1, max_yaw_deg=45, max_pitch_deg=45)
CENTRE = Box(75, 75, 175, 175)
SHARP = Quality(size_px=100, sharpness=100, brightness=0.5, yaw_deg=0, pitch_deg=0, roll_deg=0)


def face(vector: Sequence[float], box: Box = CENTRE, *, quality: Quality = SHARP, score: float = 0.99) -> DescribedFace:
    found = DetectedFace(box, np.zeros((5, 2), np.float32), score)
    unit = np.array(vector, np.float32) / np.linalg.norm(vector)
    return DescribedFace(found, quality, Embedding(unit.astype(np.float32), "fake"))


class FakePipeline:
    """Parses photos such as `person 3 shift 0.1`: a vector near the third axis. `none` has no face."""

    pack = SimpleNamespace(name="fake")
    space = SimpleNamespace(id="fake-1")
    calibration = Calibration(((1e-2, 0.7), (1e-4, 0.8)), margin=0.02, source="made up")
    enrol_rule = recognize_rule = RULE

    def analyze_photo(self, photo: bytes, want: Want = EMBEDDINGS) -> Analysis:
        assert want.embed
        words = photo.decode().split()
        if not words:
            raise NotAnImageError("empty")
        faces: list[DescribedFace] = []
        if words[0] == "person":
            vector = np.zeros(8)
            vector[int(words[1])] = 1
            vector[(int(words[1]) + 1) % 8] = float(words[3])
            faces = [face(vector.tolist())]
        if words[-1] == "crowd":
            faces.append(face([1] * 8, Box(0, 0, 60, 60)))
        timings = {"decode": 1.0, "detect": 2.0, "embed": 3.0 if faces else 0.0}
        return Analysis(SIDE, SIDE, hashlib.sha256(photo).hexdigest(), tuple(faces), timings)


@pytest.fixture
def pipeline() -> Any:
    return FakePipeline()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six persons with four photos each and two with one; one has no face, one is damaged, one has two faces."""
    root = tmp_path / "people"
    for person in range(8):
        name = f"person_{person}"
        (root / name).mkdir(parents=True)
        for number in range(1, 5 if person < 6 else 2):
            text = f"person {person} shift {0.1 * number}"
            (root / name / f"{name}_{number:04d}.jpg").write_text(text)
    (root / "person_0/person_0_0003.jpg").write_text("none")
    (root / "person_1/person_1_0004.jpg").write_text("")
    (root / "person_2/person_2_0002.jpg").write_text("person 2 shift 0.2 crowd")
    folds = []
    for half in (0, 3):
        folds += [f"person_{half + at} 1 {2 + at}" for at in range(3)]
        folds += [f"person_{half + at} 1 person_{(half + at + 2) % 8} 1" for at in range(3)]
    (root / "pairs.txt").write_text("2\t3\n" + "\n".join(folds) + "\n")
    return root
