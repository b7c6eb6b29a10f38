"""The release: one version, said everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from vultus import __version__

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_newest_of_the_changes_and_the_installed_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]

    assert {version, newest} == {__version__}
