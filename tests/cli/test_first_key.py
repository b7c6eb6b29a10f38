"""The first administrator's key: on a terminal, or in a file for its owner alone; never in what a log keeps."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vultus.cli.serving import FIRST_KEY_FILE, _deliver_key
from vultus.errors import SetupError


def test_without_a_terminal_the_key_is_in_a_file_and_only_its_path_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, elsewhere = tmp_path / FIRST_KEY_FILE, tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    path.symlink_to(elsewhere)

    _deliver_key(path, "vultus_secret")

    printed = "".join(capsys.readouterr())
    assert str(path) in printed.replace("\n", "")
    assert "vultus_secret" not in printed
    assert (path.read_text(), stat.S_IMODE(path.lstat().st_mode)) == ("vultus_secret\n", 0o600)
    assert elsewhere.read_text() == "kept"


def test_on_a_terminal_the_key_is_shown_and_no_file_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    _deliver_key(tmp_path / FIRST_KEY_FILE, "vultus_secret")

    assert "vultus_secret" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_cannot_be_written_is_an_error_with_the_way_round(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="vultus keys create administrator --role admin"):
        _deliver_key(tmp_path / "missing" / FIRST_KEY_FILE, "vultus_secret")
