"""F1: API and PostgreSQL are killed by turns while clients enrol, change and erase; is every acknowledged write kept?

Each client owns its persons and remembers what the server acknowledged. What was not answered may have happened or not;
everything else must be as acknowledged, and nobody may have a face without a consent, or be without one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from chaos.client import CONSENT, Client, draw_vectors
from chaos.outcome import Bar, Outcome, Plan
from chaos.service import Service, run_service
from chaos.sql import connect, fetch_rows

if TYPE_CHECKING:
    from vultus.domain import FloatArray

BAR = "0 acknowledged writes lost, 0 erasures undone, 0 half-persons; ready ≤ 5 s"
READY_BAR_S = 5.0
HALF_PERSONS = """
    SELECT count(*) FROM persons WHERE NOT EXISTS (
        SELECT FROM consents WHERE consents.person_id = persons.id AND withdrawn_at IS NULL)
    UNION ALL
    SELECT count(*) FROM faces LEFT JOIN consents ON consents.id = faces.consent_id
        WHERE consents.id IS NULL OR withdrawn_at IS NOT NULL
    UNION ALL
    SELECT count(*) FROM persons WHERE external_id LIKE 'face-%' AND NOT EXISTS (
        SELECT FROM faces WHERE faces.person_id = persons.id)
"""
"""Persons without a live consent, faces without one, persons enrolled with a face who have none."""


@dataclass(slots=True)
class Ledger:
    """What one client was acknowledged.

    Attributes:
        living: Version by external id of everybody enrolled and not erased.
        erased: External ids whose erasure was acknowledged.
        open: External id whose last write has no answer: it may be as before or as after.
        written: Acknowledged writes.
    """

    living: dict[str, int] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    written: int = 0


class Writer:
    """A client that enrols, changes and erases its own persons until it is stopped."""

    def __init__(self, number: int, client: Client, vectors: FloatArray, seed: int) -> None:
        self.ledger = Ledger()
        self._number, self._client, self._vectors = number, client, vectors
        self._chance = random.Random(seed * 1000 + number)
        self._ids: dict[str, str] = {}
        self._made = 0

    async def run(self, stopped: asyncio.Event) -> None:
        """Write until the event is set; what fails without an answer is remembered as open."""
        while not stopped.is_set():
            ledger, settled = self.ledger, sorted(self.ledger.living.keys() - self.ledger.open)
            kind = self._chance.choice(["enrol", "enrol", "change", "change", "erase"] if settled else ["enrol"])
            name = self._chance.choice(settled) if kind != "enrol" else self._name_next()
            try:
                done = await getattr(self, f"_{kind}")(name)
            except (httpx.HTTPError, OSError):
                ledger.open.add(name)
                await asyncio.sleep(0.05)
                continue
            if done:
                ledger.written += 1
            else:
                await asyncio.sleep(0.05)

    def _name_next(self) -> str:
        self._made += 1
        return f"{'face' if self._made % 2 else 'plain'}-{self._number}-{self._made}"

    async def _enrol(self, name: str) -> bool:
        if name.startswith("face-"):
            vector = self._vectors[self._made % len(self._vectors)]
            answer = await self._client.enrol_vectors({name: vector})
        else:
            body = {"external_id": name, "name": "Ada", "consent": CONSENT}
            answer = await self._client.http.post("/v1/collections/default/persons", json=body)
        if not self._is_done(answer, name):
            return False
        self.ledger.living[name] = 0
        return True

    async def _find_id(self, name: str) -> str | None:
        if name not in self._ids:
            found = await self._client.http.get("/v1/collections/default/persons", params={"external_id": name})
            if found.status_code != 200:
                return None
            self._ids[name] = found.json()["items"][0]["id"]
        return self._ids[name]

    async def _change(self, name: str) -> bool:
        if (person := await self._find_id(name)) is None:
            return False
        version = self.ledger.living[name] + 1
        answer = await self._client.http.patch(
            f"/v1/collections/default/persons/{person}", json={"metadata": {"version": version}}
        )
        if not self._is_done(answer, name):
            return False
        self.ledger.living[name] = version
        return True

    async def _erase(self, name: str) -> bool:
        if (person := await self._find_id(name)) is None:
            return False
        if not self._is_done(await self._client.http.delete(f"/v1/collections/default/persons/{person}"), name):
            return False
        del self.ledger.living[name]
        self.ledger.erased.add(name)
        return True

    def _is_done(self, answer: httpx.Response, name: str) -> bool:
        """Return whether a write was acknowledged; an interrupted one may have happened all the same."""
        if answer.status_code >= 500:
            self.ledger.open.add(name)
        return answer.is_success


def compare_with_ledger(ledger: Ledger, stored: dict[str, Any]) -> list[str]:
    """Return what differs from the acknowledged writes.

    Args:
        ledger: Of one client.
        stored: Metadata by external id of every person the server has.
    """
    wrong = []
    for name, version in ledger.living.items():
        if name in ledger.open:
            continue
        if name not in stored:
            wrong.append(f"lost: {name}")
        elif stored[name].get("version", 0) != version:
            wrong.append(f"change lost: {name} has version {stored[name].get('version', 0)}, acknowledged {version}")
    return wrong + [f"erased person is back: {name}" for name in ledger.erased if name in stored]


async def measure(plan: Plan) -> Outcome:
    """Kill API and PostgreSQL by turns."""
    kills, writers = 200 if plan.long else plan.choose(20, 2), plan.choose(16, 4)
    outcome = Outcome()
    async with run_service() as service, service.open_client() as client:
        _, dimension = await client.fetch_space()
        vectors = draw_vectors(500, dimension, plan.seed)
        team = [Writer(at, client, vectors, plan.seed) for at in range(writers)]
        chance, ready = plan.make_random(), dict[str, list[float]](API=[], PostgreSQL=[])
        await _check_controls(service, client, outcome)
        for kill in range(kills):
            target = "API" if kill % 2 == 0 else "PostgreSQL"
            stopped = asyncio.Event()
            writing = [asyncio.create_task(writer.run(stopped)) for writer in team]
            await asyncio.sleep(chance.uniform(0.5, 1.5 if plan.short else 3.0))
            ready[target].append(await _kill(service, target))
            await asyncio.sleep(0.5)  # so that writes follow the recovery too
            stopped.set()
            await asyncio.gather(*writing)
            wrong = await _find_wrong(service, client, team)
            outcome.check(not wrong, f"kill {kill + 1} ({target}): {'; '.join(wrong[:3])}")
    written = sum(writer.ledger.written for writer in team)
    erased = sum(len(writer.ledger.erased) for writer in team)
    outcome.notes.append(f"{writers} clients, {written:,} acknowledged writes, {erased:,} erasures among them")
    for target, seconds in ready.items():
        outcome.bars.append(Bar(f"{target} ready after s", max(seconds), READY_BAR_S, timed=True))
    return outcome


async def _check_controls(service: Service, client: Client, outcome: Outcome) -> None:
    """Claim a write that never happened, and store a person without consent for a moment; see that both are found."""
    stored = {person["external_id"]: person["metadata"] for person in await client.list_persons()}
    claimed = compare_with_ledger(Ledger(living={"never-enrolled": 0}), stored)
    outcome.require_control(claimed, "a write that never happened is missed")
    async with connect(service) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO persons (id, collection_id) SELECT gen_random_uuid(), id FROM collections LIMIT 1"
        )
        halves = [row[0] for row in await connection.fetch(HALF_PERSONS)]
        await transaction.rollback()
    outcome.require_control(any(halves), "a person without consent is found")


async def _kill(service: Service, target: str) -> float:
    """Kill a process and return when the server was ready again, seconds after the kill."""
    if target == "API":
        service.kill()
        return await service.start() + await service.wait_until_ready()
    os.kill(service.find_postgres()[0].pid, signal.SIGKILL)
    await asyncio.sleep(0.05)  # readiness of before the kill does not count
    return 0.05 + await service.wait_until_ready()


async def _find_wrong(service: Service, client: Client, team: list[Writer]) -> list[str]:
    stored = {person["external_id"]: person["metadata"] for person in await client.list_persons()}
    wrong = [difference for writer in team for difference in compare_with_ledger(writer.ledger, stored)]
    halves = [row[0] for row in await fetch_rows(service, HALF_PERSONS)]
    return wrong + ([f"half-persons: {halves}"] if any(halves) else [])
