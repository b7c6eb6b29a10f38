"""`vultus import`: one bad file stops nothing, what may go away is tried again, one consent a person."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.test_commands import GRANT, Cli, cli
from tests.faces import STRANGER, drawn, encoded, nobody, portrait

from vultus.db.database import Database
from vultus.errors import DatabaseUnavailableError, OverloadedError, WorkerLostError
from vultus.services.enrolment import folder_import
from vultus.services.enrolment.registration import Registrar, RegistrationRequest

__all__ = ["cli"]


def folder(cli: Cli) -> str:
    return str(cli.folder / "people")


async def consents(database: Database) -> list[tuple[str | None, int, int]]:
    """Return the external id of each person with the numbers of their consents and faces."""
    async with database.transaction(read_only=True) as work:
        collection = await work.collections.get_collection_by_name("default")
        return [
            (
                person.external_id,
                len(await work.consents.list_consents(collection.id, person.id, after=None, limit=99)),
                len(await work.faces.list_photo_digests(collection.id, person.id)),
            )
            for person in await work.persons.list_persons(collection.id, after=None, limit=99)
        ]


async def test_one_missing_file_stops_nobody_and_is_tried_again(cli: Cli, database: Database) -> None:
    for angle in range(3):
        cli.photo(f"people/Ada/{angle}.jpg", portrait(angle=angle))
    link = Path(folder(cli)) / "Ada" / "9.jpg"
    link.symlink_to("gone.jpg")

    first = await cli.json("import", folder(cli), *GRANT, code=1)
    cli.photo("people/Ada/gone.jpg", portrait(angle=3))
    second = await cli.json("import", folder(cli), *GRANT)

    assert (first["enrolled"], first["unreadable"]) == (3, 1)
    assert (second["photos"], second["retried"], second["skipped"]) == (2, 1, 3)
    assert await consents(database) == [("Ada", 1, 4)]


async def test_all_photos_of_a_person_are_under_one_consent(
    cli: Cli, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VULTUS_PHOTOS__MAX_PHOTOS", "2")
    cli.photo("people/Ada/0.jpg", nobody())
    cli.photo("people/Ada/1.jpg", nobody())
    for angle in range(2, 7):
        cli.photo(f"people/Ada/{angle}.jpg", portrait(angle=angle))

    first = await cli.json("import", folder(cli), *GRANT, code=1)
    cli.photo("people/Ada/7.jpg", portrait(angle=7))
    await cli.json("import", folder(cli), *GRANT, code=1)
    cli.photo("people/Ada/8.jpg", portrait(angle=8))
    await cli.json("import", folder(cli), "--purpose", "Another", "--recorded-by", "tests", code=1)

    assert (first["enrolled"], first["no_face"]) == (5, 2)
    assert await consents(database) == [("Ada", 2, 7)]


async def test_a_withdrawn_consent_is_not_gone_on_with(cli: Cli, database: Database) -> None:
    cli.photo("people/Ada/1.jpg", portrait())
    await cli.json("import", folder(cli), *GRANT)
    async with database.transaction() as work:
        collection = await work.collections.get_collection_by_name("default")
        (person,) = await work.persons.list_persons(collection.id, after=None, limit=9)
        await work.persons.delete_person(collection.id, person.id)
    cli.photo("people/Ada/2.jpg", portrait(angle=3))

    assert (await cli.json("import", folder(cli), *GRANT))["enrolled"] == 1
    assert await consents(database) == [("Ada", 1, 1)]


async def test_the_report_lies_beside_the_photos_and_everything_left_out_is_counted(cli: Cli) -> None:
    for path in ("Ada/a.jpg", "Ada/2003/b.jpg", "loose.jpg", "#recycle/c.jpg"):
        cli.photo(f"people/{path}", portrait())
    cli.photo("people/Ada/film.mov", b"\0\0\0\x14ftypqt  ")
    before = sorted(Path(folder(cli)).rglob("*"))
    Path(folder(cli)).chmod(0o555)

    done = await cli.json("import", folder(cli), *GRANT, code=1)
    shown = (await cli("import", folder(cli), *GRANT, code=1)).stdout

    assert done["left_out"] == {"loose": 1, "nested": 1, "not_a_photo": 1, "system": 1}
    assert (done["left_out_suffixes"], done["persons"], done["persons_enrolled"]) == ({".mov": 1}, 1, 1)
    assert sorted(Path(folder(cli)).rglob("*")) == before
    lines = [json.loads(line) for line in Path(done["report"]).read_text().splitlines()]
    assert {line["left_out"] for line in lines if "left_out" in line} == {
        "loose.jpg", "Ada/2003/b.jpg", "Ada/film.mov", "#recycle"
    }  # fmt: skip
    for words in ("Persons: 1; enrolled: 1", "lie loose", "inside a person's folder", "(1 .mov)", "done before: 1"):
        assert words in shown


async def test_a_folder_without_people_is_refused_before_anything_is_opened(cli: Cli) -> None:
    cli.photo("people/Ada.jpg", portrait())

    refused = await cli.json("import", folder(cli), *GRANT, code=2)

    assert refused["error"]["left_out"] == {"loose": 1}
    assert not (cli.folder / "data").exists()


async def test_a_report_in_a_folder_that_is_not_there_is_refused_before_the_work(cli: Cli) -> None:
    cli.photo("people/Ada/1.jpg", portrait())

    await cli("import", folder(cli), *GRANT, "--report", str(cli.folder / "nowhere" / "x"), code=2)

    assert not (cli.folder / "nowhere").exists()
    assert not (cli.folder / "data").exists()


async def test_a_person_who_has_another_name_by_now_keeps_it(cli: Cli, database: Database) -> None:
    cli.photo("people/E_7/1.jpg", portrait())
    await cli.json("import", folder(cli), *GRANT)
    async with database.transaction() as work:
        collection = await work.collections.get_collection_by_name("default")
        (person,) = await work.persons.list_persons(collection.id, after=None, limit=9)
        await work.persons.update_person(collection.id, person.id, name="Ada Lovelace")
    cli.photo("people/E_7/2.jpg", portrait(angle=3))

    assert (await cli.json("import", folder(cli), *GRANT))["enrolled"] == 1


@pytest.mark.parametrize("error", [WorkerLostError("gone"), OverloadedError("full"), DatabaseUnavailableError("away")])
async def test_a_registration_that_breaks_off_loses_one_photo_at_most(
    error: Exception, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost worker takes its photo with it, and no other; full and away are waited for."""
    monkeypatch.setattr(folder_import, "DATABASE_PAUSES_S", (0.01,))
    for angle in range(3):
        cli.photo(f"people/Ada/{angle}.jpg", portrait(angle=angle))
    register = Registrar.register
    failed: list[int] = []

    async def break_off(self: Registrar, principal: Any, request: RegistrationRequest, **options: Any) -> Any:
        is_at_fault = any(photo.filename == "Ada/1.jpg" for photo in request.photos)
        if is_at_fault and (isinstance(error, WorkerLostError) or not failed):
            failed.append(1)
            raise error
        return await register(self, principal, request, **options)

    monkeypatch.setattr(Registrar, "register", break_off)
    is_lost = isinstance(error, WorkerLostError)
    first = await cli.json("import", folder(cli), *GRANT, code=1 if is_lost else 0)
    monkeypatch.undo()

    assert first["enrolled"] == (2 if is_lost else 3)
    assert first.get("worker_lost", 0) == (1 if is_lost else 0)


async def test_a_database_that_stays_away_ends_the_import_with_its_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.photo("people/Ada/1.jpg", portrait())
    monkeypatch.setattr(folder_import, "DATABASE_PAUSES_S", (0.01,))

    async def fail(*_: Any, **__: Any) -> Any:
        raise DatabaseUnavailableError("away")

    monkeypatch.setattr(Registrar, "register", fail)

    assert (await cli.json("import", folder(cli), *GRANT, code=6))["error"]["code"] == "database_unavailable"


async def test_an_import_into_an_unknown_collection_says_so(cli: Cli) -> None:
    cli.photo("people/Ada/1.jpg", portrait())

    refused = await cli.json("import", str(cli.folder / "people"), *GRANT, "-c", "nowhere", code=3)

    assert refused["error"]["code"] == "not_found"


async def test_an_import_registers_folders_reports_rejects_and_resumes(cli: Cli) -> None:
    cli.photo("people/Ada_Lovelace/1.jpg", portrait())
    cli.photo("people/Ada_Lovelace/2.jpg", portrait(mirror=True))
    cli.photo("people/Ada_Lovelace/wall.png", nobody())
    cli.photo("people/Nobody/1.jpg", b"no image")
    folder = str(cli.folder / "people")

    first = await cli.json("import", folder, *GRANT, code=1)
    cli.photo("people/Bob/1.jpg", encoded(drawn(STRANGER)))
    second = await cli.json("import", folder, *GRANT, code=1)
    found = await cli.json("recognize", cli.photo("party.jpg", portrait(angle=4)))

    assert {**first, "report": ""} == {
        "persons": 2, "persons_enrolled": 1, "photos": 4, "skipped": 0, "retried": 0, "refused_before": 0,
        "enrolled": 2, "no_face": 1, "not_an_image": 1, "left_out": {}, "left_out_suffixes": {}, "report": "",
    }  # fmt: skip
    assert {**second, "report": ""} == {
        "persons": 3, "persons_enrolled": 2, "photos": 1, "skipped": 4, "retried": 0, "refused_before": 2,
        "enrolled": 1, "left_out": {}, "left_out_suffixes": {}, "report": "",
    }  # fmt: skip
    assert found["faces"][0]["person"]["name"] == "Ada Lovelace"
    assert found["faces"][0]["person"]["external_id"] == "Ada_Lovelace"


async def test_photos_refused_before_are_tried_again_under_other_rules(cli: Cli) -> None:
    small = np.pad(drawn(5, side=200), ((100, 100), (0, 0), (0, 0)), mode="edge")
    couple = np.hstack([drawn(STRANGER), small])
    cli.photo("people/Ada/1.jpg", portrait())
    cli.photo("people/Bob/couple.jpg", encoded(couple))
    cli.photo("people/Bob/wall.jpg", nobody())
    folder = str(cli.folder / "people")

    first = await cli.json("import", folder, *GRANT, code=1)
    same = await cli.json("import", folder, *GRANT, code=1)
    largest = await cli.json("import", folder, *GRANT, "--largest-face", code=1)
    again = await cli("import", folder, *GRANT, "--largest-face", code=1)
    retried = await cli.json("import", folder, *GRANT, "--largest-face", "--retry", code=1)

    assert (first["enrolled"], first["several_faces"], first["no_face"]) == (1, 1, 1)
    assert (same["photos"], same["skipped"], same["refused_before"]) == (0, 3, 2)
    assert (largest["photos"], largest["retried"], largest["enrolled"], largest["no_face"]) == (2, 2, 1, 1)
    assert "refused before under the same rules and not tried again: 1" in again.stderr
    assert "--retry" in again.stderr
    assert (retried["photos"], retried["retried"], retried["no_face"], retried["skipped"]) == (1, 1, 1, 2)


async def test_a_changed_policy_is_another_rule(cli: Cli, database: Database) -> None:
    cli.photo("people/Ada/1.jpg", portrait())
    folder = str(cli.folder / "people")

    async def set_least_brightness(value: float) -> None:
        async with database.transaction() as work:
            found = await work.collections.get_collection_by_name("default")
            enrol = replace(found.policy.enrol, min_brightness=value)
            await work.collections.update_collection(found.id, policy=replace(found.policy, enrol=enrol))

    await cli("recognize", cli.photo("ada.jpg", portrait()))
    await set_least_brightness(0.99)
    refused = await cli.json("import", folder, *GRANT, code=1)
    await set_least_brightness(0)
    taken = await cli.json("import", folder, *GRANT)

    assert refused["too_dark"] == 1
    assert (taken["retried"], taken["enrolled"]) == (1, 1)


async def test_a_file_that_was_replaced_and_a_limit_that_was_raised_are_seen(
    cli: Cli, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.photo("people/Ada/1.jpg", portrait())
    cli.photo("people/Ada/2.jpg", portrait(angle=3)[:900])
    cli.photo("people/Ada/3.jpg", portrait(angle=6) + bytes(2**17))
    monkeypatch.setenv("VULTUS_PHOTOS__MAX_BYTES", str(2**17))

    first = await cli.json("import", folder(cli), *GRANT, code=1)
    cli.photo("people/Ada/1.jpg", portrait(angle=9))
    cli.photo("people/Ada/2.jpg", portrait(angle=3))
    monkeypatch.delenv("VULTUS_PHOTOS__MAX_BYTES")
    second = await cli.json("import", folder(cli), *GRANT)
    third = await cli.json("import", folder(cli), *GRANT)

    assert (first["enrolled"], first["image_truncated"], first["image_too_large"]) == (1, 1, 1)
    assert (second["enrolled"], second["retried"], second["skipped"]) == (3, 2, 0)
    assert (third["photos"], third["skipped"]) == (0, 3)
    assert await consents(database) == [("Ada", 1, 4)]


async def test_one_report_may_serve_several_collections(cli: Cli) -> None:
    cli.photo("people/Ada/1.jpg", portrait())
    report = ["--report", str(cli.folder / "report.jsonl")]
    await cli.json("collections", "create", "other")

    first = await cli.json("import", folder(cli), *GRANT, *report)
    second = await cli.json("import", folder(cli), *GRANT, *report, "-c", "other")
    (cli.folder / "report.jsonl").unlink()
    anew = await cli.json("import", folder(cli), *GRANT, *report)

    assert (first["enrolled"], second["enrolled"]) == (1, 1)
    assert (anew["duplicate_photo"], anew["persons_enrolled"]) == (1, 1)


async def test_a_copy_of_a_refused_photo_is_refused_too(cli: Cli) -> None:
    for path in ("Ada/1.jpg", "Bob/1.jpg", "Bob/2.jpg"):
        cli.photo(f"people/{path}", portrait())
    (Path(folder(cli)) / "Bob").rename(cli.folder / "Bob")
    await cli.json("import", folder(cli), *GRANT)
    (cli.folder / "Bob").rename(Path(folder(cli)) / "Bob")

    done = await cli.json("import", folder(cli), *GRANT, code=1)
    again = await cli.json("import", folder(cli), *GRANT, code=1)

    assert (done["enrolled_as_other_person"], done["persons_enrolled"]) == (2, 1)
    assert (again["enrolled_as_other_person"], again["persons_enrolled"]) == (2, 1)


async def test_an_import_of_more_photos_than_the_queue_holds_waits(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with as many photos would be refused, each time it is sent again."""
    monkeypatch.setenv("VULTUS_INFERENCE__WORKERS", "1")
    monkeypatch.setenv("VULTUS_INFERENCE__MAX_QUEUE", "1")
    for angle in range(4):
        cli.photo(f"people/Ada/{angle}.jpg", portrait(angle=angle))

    imported = await cli.json("import", str(cli.folder / "people"), *GRANT)

    assert imported["photos"] == 4
    assert imported["enrolled"] >= 1
