"""Several packs from folder to table, with a pipeline that reads texts instead of photos."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.evaluation.conftest import FakePipeline
from typer.testing import CliRunner, Result

from vultus.cli import evaluate, packs
from vultus.cli.app import app
from vultus.evaluation.comparison import TABLE_END, TABLE_START
from vultus.models.catalog.packs import BUILTIN

NAMES = "builtin,yunet-n+mobilefacenet, opencv"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Open a pipeline of any name, and record the name."""
    names = []

    def open_pipeline(_: Any, name: str, **__: Any) -> Any:
        pipeline: Any = FakePipeline()
        pipeline.pack, pipeline.space = SimpleNamespace(name=name), SimpleNamespace(id=f"{name}-1")
        names.append(name)
        return pipeline

    monkeypatch.setattr(evaluate, "open_pipeline", open_pipeline)
    return names


@pytest.fixture
def people(folder: Path) -> Path:
    (folder / "person_1/person_1_0004.jpg").unlink()
    return folder


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    root = tmp_path / "strangers"
    lines = ["path,age,sex,race"]
    for at in range(30):
        name = f"{at:02d}/{at:02d}.jpg"
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("none" if at == 29 else f"person {at % 3} shift {0.1 * at}")
        lines.append(f"{name},{20 + at},{'male' if at % 2 else 'female'},a")
    (root / "groups.csv").write_text("\n".join(lines))
    return root


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "packs", *(str(word) for word in words)])


def test_one_command_makes_the_table(opened: list[str], people: Path, strangers: Path, tmp_path: Path) -> None:
    document = tmp_path / "accuracy.md"
    document.write_text(f"before\n{TABLE_START}\n{TABLE_END}\nafter\n")
    words = (people, "--matched", strangers, "--packs", NAMES, "--out", tmp_path / "out", "--table", document)

    result = call(*words, "--cache", tmp_path / "cache", "--json")

    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["schema"] == "vultus.evaluation.packs/1"
    assert [pack["pack"] for pack in printed["packs"]] == ["builtin", "yunet-n+mobilefacenet", "opencv"]
    assert all(pack["matched_without_face"] == 1 for pack in printed["packs"])
    assert printed["packs"][0]["time"]["relative"] == 1
    assert str(tmp_path) not in printed["provenance"]["command"]
    assert document.read_text().count("\n| `") == 3
    assert len(list((tmp_path / "cache").iterdir())) == 6
    assert json.loads((tmp_path / "out/packs.json").read_text()) == printed


def test_vectors_are_embedded_once(
    opened: list[str], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (people, "--pack", "builtin", "--out", tmp_path / "out", "--cache", tmp_path / "cache")
    assert call(*words).exit_code == 0

    monkeypatch.setattr(evaluate, "embed_photos", lambda *_, **__: pytest.fail("embedded again"))
    again = call(*words)

    assert again.exit_code == 0, again.output
    assert "| `builtin` |" in again.stdout
    assert "not measured" in again.stdout


def test_every_pack_present_is_measured_by_default(
    opened: list[str], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "list_present_packs", lambda _: [BUILTIN])

    result = call(people, "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert set(opened) == {"builtin"}


def test_an_unknown_pack_is_refused_before_anything_runs(opened: list[str], people: Path, tmp_path: Path) -> None:
    result = call(people, "--packs", "builtin,nothing", "--out", tmp_path / "out")

    assert result.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_different_persons_is_too_small(opened: list[str], tmp_path: Path) -> None:
    (tmp_path / "people/ada").mkdir(parents=True)
    (tmp_path / "people/ada/1.jpg").write_text("person 0 shift 0")

    result = call(tmp_path / "people", "--pack", "builtin", "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert "too small" in result.stderr
