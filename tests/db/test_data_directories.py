"""The data directory of the embedded server: any name, closed to others, owned by the server's user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.db.test_embedded import ROOT, as_root, fetch_value, has_ended, mode, postmaster

from vultus.db.embedded.account import SystemAccount, get_server_account
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.errors import EmbeddedDatabaseError
from vultus.server.privileges import leave_root
from vultus.settings import Settings


async def test_a_data_directory_with_a_long_path(data_dir: Path) -> None:
    deep = data_dir.joinpath(*["a directory with a name of its own"] * 3)
    data_dir.chmod(0o755)
    with EmbeddedPostgres(deep) as server:
        url = server.start().owner

        assert await fetch_value(url, "SELECT 1") == 1
        sockets = Path(postmaster(deep).cwd(), "postmaster.pid").read_text().splitlines()[4]

    assert Path(sockets).parent == Path(tempfile.gettempdir())
    assert mode(Path(sockets)) == 0o700
    Path(sockets).rmdir()


def test_a_file_in_the_way_is_a_clear_error(data_dir: Path) -> None:
    (data_dir / "file").touch()

    with pytest.raises(EmbeddedDatabaseError, match="VULTUS_DATA_DIR"):
        EmbeddedPostgres(data_dir / "file" / "data").start()


@as_root
def test_a_directory_closed_to_the_servers_user_is_a_clear_error(data_dir: Path) -> None:
    with pytest.raises(EmbeddedDatabaseError, match=f"cannot enter {data_dir}.*VULTUS_DATA_DIR=/var/lib/vultus"):
        EmbeddedPostgres(data_dir / "deeper").start()


def test_traversal_permissions(data_dir: Path) -> None:
    data_dir.chmod(0o750)
    inside = data_dir / "inside"
    owner, group = data_dir.stat().st_uid, data_dir.stat().st_gid

    assert SystemAccount("other", owner + 1000, group + 1000).find_blocked_directory(inside) == data_dir
    assert SystemAccount("member", owner + 1000, group).find_blocked_directory(inside) is None
    assert SystemAccount("owner", owner, group + 1000).find_blocked_directory(inside) is None


@pytest.mark.parametrize(
    "name",
    ["two words", 'it\'s "it" $(touch made-by-a-shell)', "Ämter 名簿 100% a,b a\\b a@b#c?d&e=f"],
)
async def test_a_data_directory_may_have_any_name(data_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(data_dir))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with EmbeddedPostgres(data_dir / name) as server:
        url = server.start().owner

        assert await fetch_value(url, "SELECT 1") == 1
        process = postmaster(data_dir / name)

    assert has_ended(process)
    assert not list(data_dir.rglob("made-by-a-shell"))


def test_a_line_break_in_the_data_directory_is_refused(data_dir: Path) -> None:
    with pytest.raises(EmbeddedDatabaseError, match="line break"):
        EmbeddedPostgres(data_dir / "a\nb").start()


def test_a_data_directory_that_was_open_is_closed_and_a_shared_one_is_not(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir.chmod(0o755)
    own, shared = data_dir / "own", data_dir / "shared"
    for folder in (own, shared):
        folder.mkdir()
        folder.chmod(0o755)
    (shared / "a file of somebody").touch()
    for folder in (own, shared):
        with EmbeddedPostgres(folder):
            pass

    assert mode(own) == (0o710 if ROOT else 0o700)
    assert mode(shared) == 0o755
    assert f"{own} was open to other users" in caplog.text


def test_files_that_a_volume_opened_to_its_group_are_closed_at_a_start(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        server.start()
    files = data_dir / "postgres"
    files.chmod(0o2770)

    with EmbeddedPostgres(data_dir) as server:
        server.start()

        assert mode(files) == 0o700


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_service_started_by_root_becomes_the_user_of_its_database(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "models").mkdir(parents=True)
    (data_dir / "models" / "weights.onnx").touch()
    (tmp_path / "elsewhere").touch()
    (data_dir / "models" / "link").symlink_to(tmp_path / "elsewhere")
    program = f"""
import os
from pathlib import Path
from vultus.db.embedded.account import SystemAccount
from vultus.server.privileges import leave_root
from vultus.settings import Settings

SystemAccount.find_blocked_directory = SystemAccount.find_unreadable = lambda self, path: None
leave_root(Settings(data_dir=Path({str(data_dir)!r})))
status = Path("/proc/self/status").read_text()
print(os.getresuid(), "CapEff:\\t0000000000000000" in status, os.getgroups(), flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    account = get_server_account(data_dir / "postgres")
    owners = {path.name: path.lstat().st_uid for path in (data_dir, *data_dir.rglob("*"), tmp_path / "elsewhere")}
    assert done.stdout == f"({account.uid}, {account.uid}, {account.uid}) True []\n", done.stderr
    assert owners.pop("elsewhere") == 0
    assert set(owners.values()) == {account.uid}


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_service_stays_root_where_its_user_could_not_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "somebody's").touch()

    leave_root(Settings(data_dir=tmp_path))

    assert os.geteuid() == 0
    assert "the service runs as root" in caplog.text
    assert get_server_account(tmp_path / "postgres").find_unreadable([Path("/etc/passwd"), Path("/etc/shadow")]) == (
        Path("/etc/shadow")
    )
