"""A collection moves from one data directory to another, as operators do it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cli.test_backups import run
from tests.networks import share_networks

from vultus.utils.age_files import make_identity


@pytest.fixture(autouse=True)
def _common_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    share_networks(monkeypatch)


def test_a_collection_is_exported_and_imported_and_says_how(data_dir: Path, tmp_path: Path) -> None:
    here, there, file = data_dir / "here", data_dir / "there", tmp_path / "staff.bundle"
    data_dir.chmod(0o755)
    secret, recipient = make_identity()
    (identity := tmp_path / "key").write_text(secret)
    space = run(here, "collections", "create", "staff").split("of contract ")[1].split(".")[0]
    vectors = np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)
    np.savez(tmp_path / "people.npz", vectors=vectors, external_ids=np.array(["a", "b", "c"]), contract=np.array(space))
    run(here, "import-vectors", tmp_path / "people.npz", "-c", "staff", "--purpose", "x", "--recorded-by", "y")

    assert "say --plain" in run(here, "export-bundle", "staff", file, code=2)
    said = run(here, "export-bundle", "staff", file, "--recipient", recipient)
    key = said.split("Signed by ")[1].split(":")[0]

    assert "3 persons, 3 consents, 3 faces" in said
    assert "--signed-by" in run(there, "import-bundle", file, "-i", identity, code=2)
    report = run(there, "import-bundle", file, "-i", identity, "--signed-by", key)
    again = run(there, "import-bundle", file, "-i", identity, "--signed-by", key, "--json")
    assert "Created staff" in report
    assert "3 persons, 3 consents, 3 faces" in report
    assert '"persons": 0' in again
    assert '"known": 3' in again
