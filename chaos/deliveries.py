"""F21: events occur while their receiver is down and the server is killed; does each arrive once, and in order?

A webhook and a stream follow the same server. Events are written over HTTP in several collections, and as sightings of
several sources by transactions that overlap. Afterwards what arrived is compared with the outbox.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

from chaos.client import CONSENT
from chaos.outcome import Outcome, Plan
from chaos.service import find_free_port, run_service
from chaos.sql import connect, fetch_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from chaos.client import Client
    from chaos.service import Service

PAUSE_S = 0.1
BAR = "0 events lost, 0 twice, 0 out of order; to the webhook and over the stream"
SETTINGS = {"WEBHOOKS__ALLOWED_NETWORKS": "127.0.0.1", "WEBHOOKS__FIRST_RETRY_S": "0.5"}
LANE = "CASE WHEN action = 'unknown' THEN object_id ELSE collection_id END"
WRITTEN = (
    f"SELECT id::text, {LANE}::text AS lane FROM outbox WHERE number > $1 AND collection_id IS NOT NULL ORDER BY number"
)
SIGHTING = """
    INSERT INTO outbox (action, collection_id, object_id, detail)
    VALUES ('unknown', $1, $2, '{"origin": "source", "at": "2026-11-24T09:30:00+00:00"}')
"""


@dataclass(slots=True)
class Arrivals:
    """What a follower got.

    Attributes:
        ids: Of events, each once, in the order in which they were accepted first.
        repeats: Events that came again.
        forged: Messages without a right signature.
    """

    ids: list[str] = field(default_factory=list)
    repeats: int = 0
    forged: int = 0
    _seen: set[str] = field(default_factory=set)

    def add(self, event_id: str) -> None:
        """Note an event."""
        if event_id in self._seen:
            self.repeats += 1
            return
        self._seen.add(event_id)
        self.ids.append(event_id)


@asynccontextmanager
async def receive_deliveries(port: int, secret: str, arrivals: Arrivals) -> AsyncIterator[None]:
    """Accept what is delivered to a port of loopback, until the block ends."""
    verifier = Webhook(secret)
    open_lines: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_lines.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                signature = next(line for line in head.split("\r\n") if line.lower().startswith("webhook-signature"))
                headers["webhook-signature"] = signature.split(": ", 1)[1]
                body = await reader.readexactly(int(headers["content-length"]))
                try:
                    verifier.verify(body, headers)
                    arrivals.add(headers["webhook-id"])
                except WebhookVerificationError:
                    arrivals.forged += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for line in open_lines:
            line.transport.abort()
        await server.wait_closed()


async def follow_stream(client: Client, arrivals: Arrivals, cursor: str) -> None:
    """Read the stream until cancelled, and take it up again whenever it ends."""
    while True:
        with suppress(httpx.HTTPError):
            headers = {"Last-Event-ID": cursor}
            async with client.http.stream("GET", "/v1/events/stream", headers=headers, timeout=30) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("id: "):
                        cursor = line.removeprefix("id: ")
                    elif line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        if event["data"]["collection_id"] is not None:
                            arrivals.add(event["id"])
        await asyncio.sleep(0.1)


async def write_persons(client: Client, collection: str, stopped: asyncio.Event) -> None:
    """Create persons and change them, until told to stop."""
    while not stopped.is_set():
        with suppress(httpx.HTTPError, KeyError):
            made = await client.http.post(
                f"/v1/collections/{collection}/persons", json={"name": "Ada", "consent": CONSENT}
            )
            await client.http.patch(f"/v1/collections/{collection}/persons/{made.json()['id']}", json={"name": "Eve"})
        await asyncio.sleep(PAUSE_S)


async def write_sightings(service: Service, collection_id: str, source: str, stopped: asyncio.Event) -> None:
    """Record sightings in transactions that overlap those of others, and some of which fail, until told to stop."""
    step = 0
    while not stopped.is_set():
        with suppress(Exception):  # the database is restarted with the server
            async with connect(service) as connection:
                while not stopped.is_set():
                    step += 1
                    transaction = connection.transaction()
                    await transaction.start()
                    await connection.execute(SIGHTING, collection_id, source)
                    await asyncio.sleep(PAUSE_S * (1 + step % 3))
                    await (transaction.rollback() if step % 5 == 0 else transaction.commit())
        await asyncio.sleep(0.1)


def find_differences(written: Sequence[tuple[str, str]], arrived: Sequence[str]) -> list[str]:
    """Return what is lost, invented or out of order.

    Args:
        written: Ids of events in their order, each with its lane.
        arrived: Ids, each once.
    """
    lanes = dict(written)
    wrong = [f"lost: {one}" for one, _ in written if one not in set(arrived)]
    wrong += [f"invented: {one}" for one in arrived if one not in lanes]
    expected, found = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for one, lane in written:
        expected[lane].append(one)
    for one in arrived:
        if one in lanes:
            found[lanes[one]].append(one)
    for lane, ids in expected.items():
        kept = [one for one in ids if one in set(found[lane])]
        wrong += [f"out of order: lane {lane}"] * (kept != found[lane])
    return wrong


async def measure(plan: Plan) -> Outcome:
    """Write events, take the receiver away, kill the server, and compare."""
    outcome, down_s = Outcome(), plan.choose(60, 3)
    outcome.require_control(
        len(find_differences([("a", "1"), ("b", "1"), ("c", "1")], ["b", "a"])) == 2, "an event lost, two in disorder"
    )
    async with run_service(SETTINGS) as service, service.open_client() as client:
        hooked, streamed, port = Arrivals(), Arrivals(), find_free_port()
        created = await client.http.post("/v1/webhooks", json={"name": "F21", "url": f"http://127.0.0.1:{port}/"})
        secret = created.json()["secret"]
        cursor = (await client.http.get("/v1/events", params={"limit": 500})).json()["last_cursor"]
        following = asyncio.create_task(follow_stream(client, streamed, cursor))
        stopped = asyncio.Event()
        writing = await _start_writers(service, client, stopped)
        async with receive_deliveries(port, secret, hooked):
            await asyncio.sleep(plan.choose(10, 2))
        await asyncio.sleep(down_s / 2)
        service.kill()
        await service.start()
        await service.wait_until_ready()
        await asyncio.sleep(down_s / 2)
        async with receive_deliveries(port, secret, hooked):
            await asyncio.sleep(plan.choose(10, 2))
            stopped.set()
            await asyncio.gather(*writing)
            written = await _wait_for_all(service, int(cursor), hooked, streamed)
        following.cancel()
        await asyncio.wait([following])
    for name, arrivals in (("webhook", hooked), ("stream", streamed)):
        wrong = find_differences(written, arrivals.ids)
        outcome.tries += len(written)
        outcome.failures += [f"{name}: {one}" for one in wrong]
        outcome.notes.append(f"{name}: {len(arrivals.ids):,} events, {arrivals.repeats} sent again under the same id")
    outcome.check(not hooked.forged, f"{hooked.forged} deliveries with a wrong signature")
    outcome.check(not streamed.repeats, f"{streamed.repeats} events twice in the stream")
    outcome.notes.append(f"receiver down for {down_s} s, server killed in between")
    return outcome


async def _start_writers(service: Service, client: Client, stopped: asyncio.Event) -> list[asyncio.Task[Any]]:
    writing = []
    for at in range(3):
        made = await client.http.post("/v1/collections", json={"name": f"lane-{at}"})
        writing.append(asyncio.create_task(write_persons(client, f"lane-{at}", stopped)))
        for _ in range(2):
            writing.append(asyncio.create_task(write_sightings(service, made.json()["id"], str(uuid4()), stopped)))
    return writing


async def _wait_for_all(service: Service, after: int, *followers: Arrivals) -> list[tuple[str, str]]:
    """Wait until every follower has everything, or nothing has come for long; return what was written."""
    written = [(row["id"], row["lane"]) for row in await fetch_rows(service, WRITTEN, after)]
    before, since = -1, asyncio.get_running_loop().time()
    while (count := sum(len(one.ids) for one in followers)) < len(written) * len(followers):
        now = asyncio.get_running_loop().time()
        if count != before:
            before, since = count, now
        if now - since > 150:
            break
        await asyncio.sleep(0.1)
    return written
