"""Migrations form one line, each file named after its revision."""

from __future__ import annotations

from pathlib import Path

from alembic.script import ScriptDirectory

import vultus.db


def test_each_migration_follows_the_one_before() -> None:
    folder = Path(vultus.db.__file__).parent / "migrations"
    scripts = list(ScriptDirectory(str(folder)).walk_revisions())

    assert [script.revision for script in scripts] == sorted({script.revision for script in scripts}, reverse=True)
    assert sorted(path.stem for path in (folder / "versions").glob("0*.py")) == sorted(
        Path(script.path).stem for script in scripts
    )
    assert all(Path(script.path).name.startswith(f"{script.revision}_") for script in scripts)
