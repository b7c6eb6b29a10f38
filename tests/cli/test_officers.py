"""What an officer needs by command: persons, consents, erasure, export, audit, sweep; and collections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import text
from tests.cli.test_commands import GRANT, Cli, cli
from tests.faces import portrait

from vultus.db.database import Database
from vultus.services.people.scrub import NO_FILES

__all__ = ["cli"]


async def register(cli: Cli, external_id: str = "E-7", angle: int = 0, *options: str) -> Any:
    photo = cli.photo(f"{external_id}{angle}.jpg", portrait(angle=angle))
    words = ["--external-id", external_id, "--name", "Ada", "--allow-lookalike", *GRANT, *options]
    return await cli.json("register", photo, *words)


async def expire(database: Database, consent: str) -> None:
    """Let a consent have ended, with the faces that follow its end."""
    async with database.transaction() as work:
        await work._session.execute(
            text("UPDATE consents SET expires_at = now() - interval '1 minute' WHERE id = :id"), {"id": consent}
        )


async def test_persons_are_listed_shown_and_erased(cli: Cli) -> None:
    made = await register(cli)
    await register(cli, "E-8")

    listed = await cli.json("persons", "list")
    (first,) = await cli.json("persons", "list", "--limit", "1")
    (second,) = await cli.json("persons", "list", "--after", first["id"])
    shown = await cli("persons", "show", "E-7")
    refused = await cli.json("persons", "erase", "E-7", code=2)
    erased = await cli.json("persons", "erase", "E-7", "--yes")
    gone = await cli.json("persons", "show", "E-7", code=3)

    assert [person["external_id"] for person in listed] == ["E-7", "E-8"]
    assert (first["external_id"], second["external_id"]) == ("E-7", "E-8")
    for words in ("Ada", "Tests", made["consent"]["id"], made["accepted"][0]["face"]["id"]):
        assert words in shown.stdout
    assert "--yes" in refused["error"]["detail"]
    assert (erased["person_id"], erased["person_erased"]) == (made["person"]["id"], True)
    assert (erased["faces"], erased["consents"], erased["state"]) == (1, 1, "unreadable")
    assert [one["id"] for one in await cli.json("erasures", "list")] == [erased["erasure_id"]]
    assert made["person"]["id"] in (await cli("erasures", "show", erased["erasure_id"])).stdout
    assert gone["error"]["code"] == "not_found"


async def test_an_erasure_is_scrubbed_and_receipted(cli: Cli, tmp_path: Path) -> None:
    """The database is another machine's to this installation, so that its files are not searched."""
    made = await register(cli)
    erased = await cli.json("persons", "erase", "E-7", "--yes")

    scrubbed = await cli.json("scrub")
    nothing = await cli("scrub")
    shown = await cli.json("erasures", "show", erased["erasure_id"])
    receipt = tmp_path / "receipt.json"
    receipt.write_text((await cli("receipts", "show", erased["erasure_id"])).stdout)
    public_key = (await cli("receipts", "public-key")).stdout.strip()
    own = await cli("receipts", "verify", str(receipt))
    verified = await cli.json("receipts", "verify", str(receipt), "--public-key", public_key)
    receipt.write_text(receipt.read_text().replace('"faces":1', '"faces":2'))
    refused = await cli.json("receipts", "verify", str(receipt), code=2)

    assert (scrubbed["erasures"], scrubbed["planted"]) == (1, 0)
    assert NO_FILES in scrubbed["unproven"]
    assert "nothing was done" in nothing.stdout
    assert (shown["state"], shown["report"]["unproven"]) == ("scrubbed", scrubbed["unproven"])
    assert "stands" in own.stdout
    assert "consents 1, crops 0, faces 1, persons 1" in own.stdout
    assert not {"{", "["} & set(own.stdout)
    assert (verified["person"], verified["unproven"]) == (made["person"]["id"], scrubbed["unproven"])
    assert refused["error"]["code"] == "signature_invalid"


async def test_a_consent_is_withdrawn_with_what_rests_on_it(cli: Cli) -> None:
    first = await register(cli)
    await register(cli, "E-7", 3)

    listed = await cli.json("consents", "list", "E-7")
    withdrawn = await cli.json("consents", "withdraw", "E-7", first["consent"]["id"], "--yes")
    after = await cli.json("consents", "list", "E-7")

    assert [consent["purpose"] for consent in listed] == ["Tests", "Tests"]
    assert (withdrawn["person_erased"], withdrawn["faces"]) == (False, 1)
    assert [consent["withdrawn_at"] is None for consent in after] == [False, True]


async def test_everything_held_about_a_person_is_exported(cli: Cli) -> None:
    made = await register(cli)
    target = cli.folder / "ada.json"

    await cli("persons", "export", "E-7", "--vectors", "--out", str(target))
    again = await cli.json("persons", "export", "E-7", "--out", str(target), code=2)
    plain = await cli.json("persons", "export", "E-7")

    await cli("persons", "export", "E-7", "--html", "--out", str(cli.folder / "ada.html"))
    page = (cli.folder / "ada.html").read_text()
    assert "What is held about Ada" in page
    assert made["consent"]["purpose"] in page
    whole = json.loads(target.read_text())
    assert target.stat().st_mode & 0o777 == 0o600
    assert (whole["collection"], whole["person"]["name"]) == ("default", "Ada")
    assert [consent["id"] for consent in whole["consents"]] == [made["consent"]["id"]]
    assert [(face["id"], face["crop_kept"]) for face in whole["faces"]] == [(made["accepted"][0]["face"]["id"], False)]
    assert len(whole["templates"][0]["vector"]) == 128
    assert [entry["action"] for entry in whole["audit"]] == ["person.registered"]
    assert again["error"]["code"] == "file"
    assert plain["templates"] == []


async def test_the_audit_says_who_changed_what(cli: Cli) -> None:
    made = await register(cli)
    await cli("persons", "erase", "E-7", "--yes")

    entries = await cli.json("audit", "--person", made["person"]["id"])
    first = await cli.json("audit", "--person", made["person"]["id"], "--oldest-first", "--limit", "1")
    none = await cli.json("audit", "--until", "2020-01-01")

    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("person.erased", "cli"),
        ("person.registered", "cli"),
    ]
    assert first[0]["action"] == "person.registered"
    assert none == []
    assert "person.erased" in (await cli("audit")).stdout


async def test_the_record_s_end_is_signed_and_a_decision_explained(cli: Cli) -> None:
    await cli.json("collections", "create", "door", "--threshold", "0.9", "--record-searches", "all")
    await register(cli, "E-7", 0, "--collection", "door")
    signed = cli.folder / "checkpoint.json"
    signed.write_text((await cli("audit", "checkpoint")).stdout)
    await cli.json("recognize", cli.photo("again.jpg", portrait()), "--collection", "door")

    checked = await cli.json("audit", "verify", "--checkpoint", str(signed))
    (decided,) = await cli.json("audit", "decisions")
    (explained,) = await cli.json("audit", "explain", decided["id"])
    shown = await cli("audit", "explain", decided["id"])
    missing = await cli.json("audit", "explain", "no-such-request", code=3)
    signed.write_text(signed.read_text().replace('"number":', '"number":1'))
    forged = await cli.json("audit", "verify", "--checkpoint", str(signed), code=2)

    assert (checked["checkpoints"], checked["findings"]) == (1, [])
    assert (decided["verdict"], decided["actor"], explained["consent"]["purpose"]) == ("match", "cli", "Tests")
    for words in ("threshold", "rules made by", "cli, collection.created", "above_threshold"):
        assert words in shown.stdout
    assert "record_searches" in missing["error"]["detail"]
    assert forged["error"]["code"] == "signature_invalid"


async def test_collections_are_created_listed_shown_and_deleted(cli: Cli) -> None:
    made = await cli.json("collections", "create", "staff", "--retention-days", "30", "--threshold", "0.9")
    refused = await cli.json("collections", "create", "two words", code=2)
    taken = await cli.json("collections", "create", "staff", code=4)
    listed = await cli.json("collections", "list")
    shown = await cli("collections", "show", "staff")
    await cli("collections", "create", "guests", "--threshold", "0.9", "--target-fpir", "0.1", code=2)
    await cli("collections", "delete", "staff", code=2)
    deleted = await cli.json("collections", "delete", "staff", "--yes")

    assert (made["retention_days"], made["policy"]["threshold"]) == (30, 0.9)
    assert (refused["error"]["code"], taken["error"]["code"]) == ("invalid_input", "already_exists")
    assert [one["name"] for one in listed] == ["default", "staff"]
    assert "enrol.min_size_px" in shown.stdout
    assert deleted == {"collection_id": made["id"], "persons": 0, "faces": 0}


async def test_an_expired_person_is_gone_at_once_and_erased_by_the_next_command(cli: Cli, database: Database) -> None:
    made = await register(cli)
    await expire(database, made["consent"]["id"])

    assert await cli.json("persons", "list") == []
    for command in (("persons", "show"), ("persons", "export"), ("consents", "list")):
        assert (await cli.json(*command, "E-7", code=3))["error"]["code"] == "not_found"
    await cli("verify", "E-7", cli.photo("b.jpg", portrait()), code=3)
    assert await cli.json("sweep") == {"consents_ended": 0}, "the first of these commands ended it"
    actions = [entry["action"] for entry in await cli.json("audit", "--person", made["person"]["id"])]
    assert actions == ["person.erased", "consent.expired", "person.registered"]
