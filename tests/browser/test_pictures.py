"""The script that takes the documentation's pictures still runs: the pages are there, and faces are named on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.browser.conftest import NO_CHROMIUM
from tools.pictures import FOLDER, SUBJECTS

pytestmark = NO_CHROMIUM
TIMEOUT_S = 300


@pytest.mark.usefixtures("unmeasured_processes")
def test_the_pictures_of_the_documents_can_be_taken(data_dir: Path) -> None:
    data_dir.chmod(0o711)  # for the user that runs PostgreSQL
    taken = data_dir / "pictures"
    subprocess.run(
        [sys.executable, "-m", "tools.pictures", "--quick", "--out", str(taken)],
        env={**os.environ, "TMPDIR": str(data_dir)},
        cwd=Path(__file__).parents[2],
        timeout=TIMEOUT_S,
        check=True,
    )

    names = {path.name for path in taken.glob("*.webp")}
    kept = {f"{name}-{theme}.webp" for name, subject in SUBJECTS.items() for theme in subject.themes}
    first = {f"{name}-{subject.themes[0]}.webp" for name, subject in SUBJECTS.items()}
    assert names == {*first, "live.webp", "report.webp"}
    assert {path.name for path in FOLDER.iterdir()} == {*kept, "live.webp", "report.webp"}
    with Image.open(taken / "live.webp") as moving:
        assert getattr(moving, "n_frames", 1) > 1
