"""Upgrades and backups of an embedded database, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tarfile import TarFile, TarInfo
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from tests.callers import CALLER
from tests.galleries import enrol, people
from tests.networks import share_networks
from typer.testing import CliRunner

from vultus.cli.app import app
from vultus.db import migrate, upgrades
from vultus.db.database import Database
from vultus.db.dumps import ClientPrograms
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.urls import parse_database_url
from vultus.domain import DecisionPolicy, QualityRule, Storage
from vultus.errors import EmbeddedDatabaseError, InvalidInputError
from vultus.main import open_database
from vultus.sealing.custody import open_custody
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.persons import PersonService
from vultus.services.people.rekeying import rekey_persons
from vultus.settings import DatabaseSettings, Settings
from vultus.utils.age_files import make_identity, read_identities
from vultus.utils.archives import create_archive, open_archive

RULE = QualityRule(min_score=0.9, min_size_px=40, min_sharpness=10, max_yaw_deg=30, max_pitch_deg=25)
VECTORS = people(3)
PREVIOUS = f"{int(migrate.get_head_revision()) - 1:04}"


@pytest.fixture(autouse=True)
def _common_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    share_networks(monkeypatch)


def run(data_dir: Path, *arguments: str | Path, code: int = 0, **variables: str) -> str:
    """Run a command in a thread of its own, for it starts its own event loop, and return what it said."""
    environment = {"VULTUS_DATA_DIR": str(data_dir), "COLUMNS": "1000", **variables}
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(CliRunner().invoke, app, [*map(str, arguments)], env=environment).result()
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.stderr
    return done.output


async def test_only_an_upgrade_migrates_and_it_copies_before(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        url = server.start().owner
        await migrate.upgrade_schema(url, PREVIOUS)

    assert "vultus db upgrade" in run(data_dir, "keys", "list", code=7)
    assert "vultus db upgrade" in run(data_dir, "db", "status", code=1)
    assert not (data_dir / "backups").exists()

    assert f"Upgraded from {PREVIOUS}" in run(data_dir, "db", "upgrade")

    (copy,) = (data_dir / "backups").iterdir()
    assert copy.name.startswith(f"schema-{PREVIOUS}-")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    run(data_dir, "keys", "list")
    (data_dir / "postgres").rename(data_dir / "migrated")
    with EmbeddedPostgres(data_dir) as server:
        url = server.start().owner
        ClientPrograms(parse_database_url(url), 18, data_dir).restore([copy.read_bytes()])
        assert await migrate.fetch_current_revision(url) == PREVIOUS


async def test_a_newer_schema_is_neither_copied_nor_advised_to_be_upgraded(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        url = server.start().owner
        await migrate.upgrade_schema(url)
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.execute("UPDATE alembic_version SET version_num = 'newer'")
        await connection.close()

    for arguments in (("db", "status"), ("db", "upgrade"), ("doctor",)):
        said = run(data_dir, *arguments, code=7 if "upgrade" in arguments else 1)
        assert "Install that version" in said
        assert "then run 'vultus db upgrade'" not in said
    assert not (data_dir / "backups").exists()


def test_nothing_is_migrated_where_no_copy_can_be_written(data_dir: Path) -> None:
    (data_dir / "backups").touch()
    with EmbeddedPostgres(data_dir), pytest.raises(EmbeddedDatabaseError, match=r"not migrated.*backups: "):
        upgrades.copy_embedded(data_dir, PREVIOUS)


def test_few_copies_are_kept(data_dir: Path) -> None:
    folder = data_dir / "backups"
    folder.mkdir()
    for number in range(upgrades.MAX_COPIES):
        old = folder / f"schema-000{number}-20260101T000000Z.dump"
        old.touch()
        os.utime(old, (number, number))
    with EmbeddedPostgres(data_dir):
        new = upgrades.copy_embedded(data_dir, PREVIOUS)

    assert new in set(folder.iterdir())
    assert len(list(folder.iterdir())) == upgrades.MAX_COPIES
    assert not (folder / "schema-0000-20260101T000000Z.dump").exists()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of a secret key, and the public key."""
    file = tmp_path_factory.mktemp("identity") / "backup.key"
    secret, recipient = make_identity()
    file.write_text(f"# public key: {recipient}\n{secret}\n")
    return file, recipient


async def test_a_restored_backup_answers_a_search_as_before(
    data_dir: Path, tmp_path: Path, identity: tuple[Path, str]
) -> None:
    """While another process uses the database, as a server does."""
    source, other, file = data_dir / "source", data_dir / "other", tmp_path / "today.age"
    data_dir.chmod(0o755)
    with EmbeddedPostgres(source) as server:
        url = server.start().owner
        await migrate.upgrade_schema(url)
        before = await fill_and_search(url)
        assert "Nobody is named who can open" in run(source, "backup", file, code=2)
        assert not file.exists()
        said = run(source, "backup", file, "--recipient", identity[1])

    assert len(before) == len(VECTORS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "exists" in run(source, "backup", file, "--recipient", identity[1], code=4)
    assert "It holds no key" in said
    digest = f"SHA-256 {sha256(file.read_bytes()).hexdigest()}"
    verified = run(other, "verify-backup", file, "-i", identity[0])
    assert "3 persons, 3 consents, 6 templates" in verified
    assert digest in said
    assert digest in verified
    assert not other.exists() or not (other / "postgres").exists()
    assert "not empty" in run(source, "restore", file, "-i", identity[0], code=4)
    assert "erase and revoke again" in run(other, "restore", file, "-i", identity[0])

    with EmbeddedPostgres(other) as server:
        assert await search(server.start().owner) == before


async def fill_and_search(url: str) -> list[tuple[str | None, float]]:
    database = await Database.connect(url, DatabaseSettings())
    async with database.transaction() as work:
        policy = DecisionPolicy(enrol=RULE, recognize=RULE, storage=Storage.OPEN)  # no server is there to make keys
        await work.collections.add_collection("default", "space", policy)
    await enrol(database, VECTORS)
    await database.close()
    return await search(url)


async def search(url: str) -> list[tuple[str | None, float]]:
    database = await Database.connect(url, DatabaseSettings())
    async with database.transaction(read_only=True) as work:
        found = await work.collections.get_collection_by_name("default", None)
        (result,) = await work.templates.search_exact(found.id, "space", people(1, 1, seed=9)[0], 5)
    await database.close()
    return [(one.name, one.similarity) for one in result.candidates]


async def test_an_external_database_is_backed_up_and_restored_and_its_password_is_not_shown(
    bare_database_url: str, database_url: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded server by a URL of the operator's; a wrapper of pg_dump notes what the process table would show."""
    before = await fill_and_search(database_url)
    file, secret = tmp_path / "external.tar", "Zx9!pass word"
    given = database_url.replace("postgresql+asyncpg", "postgresql") + f"&password={quote(secret)}"
    commands: list[str] = []
    start = subprocess.Popen

    def note(command: list[str], **options: Any) -> Any:
        if "--version" not in command:
            commands.append(f"{command} {options['env']['PGPASSWORD']}")
        return start(command, **options)

    monkeypatch.setattr("vultus.db.dumps.subprocess.Popen", note)
    run(data_dir, "backup", "--plain", file, VULTUS_DATABASE__URL=given)
    other = bare_database_url.replace("postgresql+asyncpg", "postgresql") + f"&password={quote(secret)}"
    run(data_dir, "restore", file, VULTUS_DATABASE__URL=other)

    assert await search(bare_database_url) == before
    assert len(commands) == 2
    assert all(one.endswith(secret) and secret not in one.removesuffix(secret) for one in commands)
    assert "not empty" in run(data_dir, "restore", file, code=4, VULTUS_DATABASE__URL=other)


def test_a_key_that_was_revoked_after_the_backup_is_revoked_again(data_dir: Path, tmp_path: Path) -> None:
    source, other, file = data_dir / "source", data_dir / "other", tmp_path / "today.tar"
    data_dir.chmod(0o755)
    created = json.loads(run(source, "keys", "create", "gate", "--role", "recognize", "--json"))
    run(source, "backup", "--plain", file, VULTUS_JOBS__AUDIT_DAYS="400")
    run(source, "keys", "revoke", created["id"])
    (data_dir / "source-custody").rename(data_dir / "other-custody")

    said = run(other, "restore", file)

    assert "1 came back and was ended again" in said
    assert "not what they were then: VULTUS_DATA_DIR, VULTUS_JOBS__AUDIT_DAYS" in said
    assert "does not go on" not in said
    assert json.loads(run(other, "keys", "list", "--json"))[0]["revoked_at"]


async def test_a_backup_of_before_a_face_was_deleted_is_restored_and_says_who_lost_their_keys(
    data_dir: Path, tmp_path: Path
) -> None:
    """Of two faces of a sealed person, both are gone from it; who got another key since has none."""
    source, other, file = data_dir / "source", data_dir / "other", tmp_path / "today.tar"
    data_dir.chmod(0o755)
    async with open_database(Settings(data_dir=source), migrates=True) as database:
        async with database.transaction() as work:
            found = await work.collections.add_collection(
                "default", "space", DecisionPolicy(enrol=RULE, recognize=RULE)
            )
        ada, bob, _ = map(UUID, await enrol(database, VECTORS))
        run(source, "backup", "--plain", file)
        async with database.transaction() as work:
            face = (await work.faces.list_faces(found.id, ada, "space", None, 1))[0]
        await PersonService(database).delete_face(CALLER, "default", ada, face.id)
        async with database.transaction() as work:
            await work.lock_collection(found.id)
            await rekey_persons(work, found.id, [bob])
        await KeyDestroyer(database, open_custody(Settings(data_dir=source)).person_keys).destroy_spent_keys()
    (data_dir / "source-custody").rename(data_dir / "other-custody")

    said = run(other, "restore", file)

    assert "1 came back and was ended again" in said
    assert f"1 persons have no key any more, and nothing of theirs can be read: {bob}" in said
    async with open_database(Settings(data_dir=other)) as database, database.transaction(read_only=True) as work:
        assert await work.templates.count_templates(found.id, "space") == 4
        assert ada not in await work.templates.count_templates_by_person(found.id, "space")


def test_a_backup_of_an_older_schema_is_upgraded_and_one_of_a_newer_refused(data_dir: Path, tmp_path: Path) -> None:
    """With the ledger of another installation, which does not hold what ended here."""
    source, older, newer = data_dir / "source", tmp_path / "older.tar", tmp_path / "newer.tar"
    data_dir.chmod(0o755)
    with EmbeddedPostgres(source) as server:
        asyncio.run(migrate.upgrade_schema(server.start().owner, PREVIOUS))
        run(source, "backup", "--plain", older)
        asyncio.run(set_revision(server.start().owner, "newer"))
        run(source, "backup", "--plain", newer)

    other = data_dir / "other"
    assert "does not know: a newer one" in run(other, "restore", newer, code=7)
    assert f"(schema {PREVIOUS}, upgraded to {migrate.get_head_revision()}, SHA-256 " in run(other, "restore", older)
    run(other, "keys", "list")


async def set_revision(url: str, revision: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute("UPDATE alembic_version SET version_num = $1", revision)
    await connection.close()


async def test_a_restored_database_holds_no_byte_of_whom_was_erased(data_dir: Path, tmp_path: Path) -> None:
    """What privacy.md advises where bytes must go; the old files show that the search finds them."""
    old, new, file, name = data_dir / "old", data_dir / "new", tmp_path / "backup.tar", b"Canary Quillfeather"
    data_dir.chmod(0o755)
    run(old, "keys", "list")
    with EmbeddedPostgres(old) as server:
        connection = await asyncpg.connect(server.start().owner.replace("+asyncpg", ""))
        await connection.execute("CREATE TABLE people (name text)")
        await connection.execute("INSERT INTO people VALUES ($1), ($2)", name.decode(), "Somebody Else")
        await connection.execute("DELETE FROM people WHERE name = $1", name.decode())
        await connection.close()
    run(old, "backup", "--plain", file)
    run(new, "restore", file)

    assert find_bytes(old / "postgres", name)
    assert find_bytes(new / "postgres", b"Somebody Else")
    assert find_bytes(new / "postgres", name) == []


def find_bytes(folder: Path, wanted: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and wanted in path.read_bytes()]


async def test_what_is_no_backup_or_damaged_is_refused_in_a_sentence_and_changes_nothing(
    data_dir: Path, tmp_path: Path, identity: tuple[Path, str], database_url: str
) -> None:
    key, recipient = identity
    whole, file, stranger = tmp_path / "whole.age", tmp_path / "other.age", tmp_path / "stranger.key"
    stranger.write_text(make_identity()[0])
    url = database_url.replace("+asyncpg", "")
    run(data_dir, "backup", whole, "--recipient", recipient, VULTUS_DATABASE__URL=url)
    content = whole.read_bytes()

    assert "name the identity" in run(data_dir, "restore", whole, code=2)
    assert "encrypted to others" in run(data_dir, "restore", whole, "-i", stranger, code=2)
    assert "holds no identity" in run(data_dir, "restore", whole, "-i", __file__, code=2)
    for damaged in (b"no archive", b"", content[: len(content) // 2], content[:-1]):
        file.write_bytes(damaged)
        said = run(data_dir, "restore", file, "-i", key, code=2)
        assert "damaged" in said, said
    with TarFile.open(file, "w") as archive:
        archive.addfile(TarInfo("backup.json"))
    assert "damaged" in run(data_dir, "restore", file, code=2)
    file.unlink()
    with create_archive(file, ()) as odd:
        odd.add_member("other", b"content")
        odd.close()
    assert "has a member 'other'" in run(data_dir, "restore", file, code=2)
    assert "is empty" in run(data_dir, "db", "status", code=1)


@given(at=strategies.integers(0, 10**9), change=strategies.integers(1, 255))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_of_an_archive_is_found_before_it_counts(
    tmp_path: Path, identity: tuple[Path, str], at: int, change: int
) -> None:
    """Encrypted or not, wherever it is; but for bytes of tar that nobody reads, such as the padding."""
    for recipients in ((), (identity[1],)):
        file = tmp_path / f"{at}-{change}-{len(recipients)}"
        with create_archive(file, recipients) as archive:
            archive.add_member("first", bytes(range(256)) * 300)
            archive.close()
        content = bytearray(file.read_bytes())
        content[at % len(content)] ^= change
        file.write_bytes(content)
        found: list[tuple[str, bytes]] = []
        with suppress(InvalidInputError), open_archive(file, read_identities(identity[0])) as reader:
            found = list(reader.read_members())
            assert not recipients or pytest.fail("a changed byte of an encrypted archive was not found")
        assert found in ([], [("first", bytes(range(256)) * 300)])


async def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    data_dir: Path, tmp_path: Path, identity: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, owner_url: str
) -> None:
    """The disk is `/dev/full`, which accepts no byte."""
    url = owner_url.replace("+asyncpg", "")
    opened = os.open

    def open_full(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        made = opened(path, flags, *rest, **options)
        if str(path).endswith(".unfinished"):
            os.dup2(opened("/dev/full", os.O_WRONLY), made)
        return made

    monkeypatch.setattr("vultus.utils.archives.os.open", open_full)
    for words in (("--plain",), ("--recipient", identity[1])):
        said = run(data_dir, "backup", tmp_path / "x", *words, code=2, VULTUS_DATABASE__URL=url)
        assert "No space left on device. Nothing was left" in said
    assert list(tmp_path.iterdir()) == []


def test_an_identity_with_a_passphrase_opens_what_was_written_to_it(data_dir: Path, tmp_path: Path) -> None:
    key, passphrase, file = tmp_path / "backup.key", tmp_path / "passphrase", tmp_path / "archive.age"
    passphrase.write_text("correct horse\n")
    recipient = run(data_dir, "backup-identity", key, "--passphrase-file", passphrase).splitlines()[0]
    with create_archive(file, (recipient,)) as archive:
        archive.add_member("first", b"content")
        archive.close()

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with open_archive(file, read_identities(key, "correct horse")) as reader:
        assert list(reader.read_members()) == [("first", b"content")]
    passphrase.write_text("battery staple\n")
    assert "does not open" in run(data_dir, "verify-backup", file, "-i", key, "--passphrase-file", passphrase, code=2)
    assert "passphrase" in run(data_dir, "verify-backup", file, "-i", key, code=2)
    assert "exists" in run(data_dir, "backup-identity", key, code=4)
