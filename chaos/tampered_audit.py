"""F18: the audit record is edited, thinned out and reordered behind the service's back; is every tampering found?

The control is the record as it was written, before and after: there nothing may be found.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from chaos.client import draw_vectors
from chaos.outcome import Outcome, Plan
from chaos.service import make_data_directory, run_service
from chaos.sql import connect, fetch_rows, find_socket_directory
from vultus.db.database import Database
from vultus.domain import Principal
from vultus.services.audit_chain import AuditChain
from vultus.settings import DatabaseSettings, Settings

if TYPE_CHECKING:
    from random import Random

    import asyncpg

    from chaos.client import Client
    from chaos.service import Service

BAR = "1,000 of 1,000 edits, deletions and reorderings of audit entries are found, and nothing in a record untouched"
SETTINGS = {"INFERENCE__WORKERS": "1"}
OFFICER = Principal.from_process("chaos")
LINKED_S = 30
COLUMNS = ("at", "actor", "request_id", "action", "collection_id", "person_id", "object_id", "detail")
EDITS = {
    "at": "at + interval '1 microsecond'",
    "actor": "actor || ' '",
    "request_id": "coalesce(request_id, '') || 'x'",
    "action": "'person.changed2'",
    "collection_id": "gen_random_uuid()",
    "person_id": "gen_random_uuid()",
    "object_id": "gen_random_uuid()",
    "detail": """detail || '{"added": 1}'""",
}


async def measure(plan: Plan) -> Outcome:
    """Write a record, and tamper with one entry or two at a time, each time undoing it."""
    outcome, random = Outcome(), plan.make_random()
    with make_data_directory() as data:
        async with run_service(SETTINGS, data) as service, service.open_client() as client:
            await _write_record(client, plan)
            await _wait_until_linked(service)
            database = await Database.connect(_build_url(service), DatabaseSettings(pool_size=2))
            settings = Settings(data_dir=data)
            chain = AuditChain(database, settings.audit_notes_file)
            entries = [row["entry_id"] for row in await fetch_rows(service, "SELECT entry_id FROM audit_links")]
            before = await chain.verify(OFFICER)
            async with connect(service) as connection:
                for _ in range(plan.choose(1_000, 60)):
                    outcome.tries += 1
                    said, undo = await _tamper(connection, random, entries)
                    if not (await chain.verify(OFFICER)).findings:
                        outcome.failures.append(said)
                    for statement, *values in undo:
                        await connection.execute(statement, *values)
            after = await chain.verify(OFFICER)
            await database.close()
    untouched = not before.findings and not after.findings and before.links > len(entries) / 2
    outcome.require_control(untouched, f"nothing found in {before.links} entries before and after")
    return outcome


async def _write_record(client: Client, plan: Plan) -> None:
    _, dimension = await client.fetch_space()
    count = plan.choose(300, 40)
    persons = {f"person-{at}": vector for at, vector in enumerate(draw_vectors(count, dimension, plan.seed))}
    (await client.enrol_vectors(persons)).raise_for_status()
    for at, person in enumerate(await client.list_persons()):
        path = f"/v1/collections/default/persons/{person['id']}"
        (await client.http.patch(path, json={"name": f"Person {at}"})).raise_for_status()
        if at % 3 == 0:
            (await client.http.delete(path)).raise_for_status()


async def _wait_until_linked(service: Service) -> None:
    query = "SELECT (SELECT count(*) FROM audit) - (SELECT count(*) FROM audit_links) AS missing"
    for _ in range(5 * LINKED_S):
        if not (await fetch_rows(service, query))[0]["missing"]:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError("The audit record was not linked in time.")


async def _tamper(connection: asyncpg.Connection, random: Random, entries: list[Any]) -> tuple[str, list[Any]]:
    """Edit, delete or swap; return what was done, and the statements with their values that undo it.

    The values about a person that an entry changed stand beside it, and are edited too.
    """
    kind = random.choice(("edit", "delete", "swap", "values"))
    first, second = random.sample(entries, 2)
    rows = [await connection.fetchrow("SELECT * FROM audit WHERE id = $1", one) for one in (first, second)]
    changes = await connection.fetch("SELECT * FROM audit_changes")
    names = ", ".join(COLUMNS)
    if kind == "edit":
        column = random.choice(COLUMNS)
        await connection.execute(f"UPDATE audit SET {column} = {EDITS[column]} WHERE id = $1", first)
    elif kind == "values":
        first = random.choice(changes)["entry_id"]
        await connection.execute("UPDATE audit_changes SET changes = changes || ' ' WHERE entry_id = $1", first)
    elif kind == "delete":
        await connection.execute("DELETE FROM audit WHERE id = $1", first)
    else:
        for one, other in ((first, rows[1]), (second, rows[0])):
            await connection.execute(
                f"UPDATE audit SET ({names}) = ($2, $3, $4, $5, $6, $7, $8, $9) WHERE id = $1",
                one,
                *(other[column] for column in COLUMNS),
            )
    undo = [
        (
            f"INSERT INTO audit (id, {names}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            f" ON CONFLICT (id) DO UPDATE SET ({names}) = ($2, $3, $4, $5, $6, $7, $8, $9)",
            *(row[column] for column in ("id", *COLUMNS)),
        )
        for row in rows
    ]
    undo += [  # they go with their entry
        (
            "INSERT INTO audit_changes (entry_id, person_id, changes) VALUES ($1, $2, $3)"
            " ON CONFLICT (entry_id) DO UPDATE SET changes = $3",
            *(row[column] for column in ("entry_id", "person_id", "changes")),
        )
        for row in changes
        if row["entry_id"] in {first, second}
    ]
    return f"{kind} of {first}: {json.dumps([row['action'] for row in rows])}", undo


def _build_url(service: Service) -> str:
    return f"postgresql://vultus@/vultus?host={find_socket_directory(service)}"
