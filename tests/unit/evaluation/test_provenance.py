"""Provenance of a measurement."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vultus import __version__
from vultus.evaluation.provenance import build_provenance, find_commit, read_cpu_model


def test_program_pack_and_machine_are_named() -> None:
    source = build_provenance(pack="some", contract_id="net-1", command="vultus evaluate")

    assert (source.version, source.pack, source.contract_id) == (__version__, "some", "net-1")
    assert source.cores >= 1
    assert source.cpu
    assert source.created_at.endswith("+00:00")


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert find_commit(tmp_path) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_changes_after_a_commit_are_reported(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *options, *words], check=True, capture_output=True)

    git("init")
    assert find_commit(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    clean = find_commit(tmp_path)
    (tmp_path / "file").write_text("two")

    assert clean
    assert find_commit(tmp_path) == f"{clean}-dirty"


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")

    assert find_commit(tmp_path) is None


def test_the_processor_is_named(tmp_path: Path) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nmodel name\t: Fast 9000 : second edition\n")

    assert read_cpu_model(information) == "Fast 9000 : second edition"


def test_a_processor_without_a_name_is_named_by_its_kind(tmp_path: Path) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\n")

    assert read_cpu_model(information) == read_cpu_model(tmp_path / "missing")
