"""Real weights outside the repository, in ../shared/models or the folder that `VULTUS_TEST_MODELS` names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("VULTUS_TEST_MODELS") or Path(__file__).parents[2] / "shared" / "models")


def real_weights(name: str) -> bytes:
    """Return a weights file, or skip the test when it is not there."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"needs the real weights {name}, which are not in {FOLDER}; set VULTUS_TEST_MODELS to their folder")
    return path.read_bytes()
