"""F10: enrolments through a proxy that cuts replies, repeated with their Idempotency-Key: is everybody there once?

Nothing but the key tells two enrolments apart: there are no external ids. Afterwards some persons are erased and their
enrolment is sent once more, as a slow queue would: it must not bring them back.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from benchmarks.photos import build_lfw_like_sample

from chaos.client import CONSENT, Client
from chaos.outcome import Outcome, Plan
from chaos.service import Service, find_free_port, run_service

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

BAR = "exactly as many persons as enrolments; an erased person's enrolment sent late stores nothing"
CUT_SHARE = 0.08
"""Of the replies' parts."""

CLIENTS = 8
MAX_TRIES = 30


class CuttingProxy:
    """Forwards connections to a server and aborts some of them in the middle of a reply.

    Args:
        port: Of the server.
        share: Probability that a part of a reply is cut.
        chance: Decides.

    Attributes:
        cuts: Replies cut so far.
    """

    def __init__(self, port: int, share: float, chance: random.Random) -> None:
        self.cuts = 0
        self._port, self._share, self._chance = port, share, chance
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[int]:
        """Listen for the length of the block; yield the port."""
        port = find_free_port()
        async with await asyncio.start_server(self._accept, "127.0.0.1", port):
            yield port
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(client, answer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _forward(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server, request = await asyncio.open_connection("127.0.0.1", self._port)
        sending = asyncio.create_task(_copy(client, request))
        try:
            while part := await server.read(2**16):
                if self._chance.random() < self._share:
                    self.cuts += 1
                    answer.write(part[: self._chance.randrange(len(part))])
                    break
                answer.write(part)
                await answer.drain()
        except OSError:
            pass
        finally:
            sending.cancel()
            for writer in (request, answer):
                writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await source.read(2**16):
            target.write(part)
            await target.drain()


class Enrolment:
    """One person to enrol, by a name or by a photo, with a key that stays the same however often it is sent.

    Attributes:
        person_id: From the reply that arrived; empty before.
        tries: How often it was sent.
    """

    def __init__(self, number: int, photo: bytes | None, key: str | None) -> None:
        self.person_id = ""
        self.tries = 0
        self._name, self._photo, self._key = f"Person {number}", photo, key

    async def send(self, client: Client) -> httpx.Response:
        """Send the enrolment."""
        self.tries += 1
        if self._photo:
            return await client.register_photo(self._photo, name=self._name, idempotency_key=self._key)
        return await client.http.post(
            "/v1/collections/default/persons",
            json={"name": self._name, "consent": CONSENT},
            headers={"Idempotency-Key": self._key} if self._key else {},
        )

    async def send_until_answered(self, client: Client) -> None:
        """Send the enrolment until a reply arrives that says who it is."""
        while not self.person_id and self.tries < MAX_TRIES:
            try:
                answer = await self.send(client)
            except (httpx.HTTPError, OSError):
                continue
            if answer.is_success:
                body = answer.json()
                self.person_id = body.get("person", body)["id"]
            else:  # still running after a cut, or refused for the moment
                await asyncio.sleep(0.05)


async def measure(plan: Plan) -> Outcome:
    """Enrol through the proxy, count, then repeat the enrolments of erased persons."""
    plain, with_photo = plan.choose(1_400, 40), plan.choose(100, 4)
    outcome, chance = Outcome(), plan.make_random()
    async with run_service() as service, service.open_client() as client:
        proxy = CuttingProxy(service.port, CUT_SHARE, chance)
        async with proxy.run() as port, Client(port, service.key) as cut_client:
            await _check_control(client, cut_client, outcome, plan.choose(100, 40))
            photo = build_lfw_like_sample().content  # bytes after its end make another file of the same picture
            keys = [str(UUID(int=chance.getrandbits(128))) for _ in range(with_photo + plain)]
            enrolments = [
                Enrolment(at, photo + bytes(at + 1) if at < with_photo else None, key) for at, key in enumerate(keys)
            ]
            await _run_all(enrolments, cut_client)
        await _count(client, enrolments, outcome)
        sent, late = sum(one.tries for one in enrolments), enrolments[:: plan.choose(10, 4)]
        outcome.notes.append(f"{len(enrolments)} persons, {proxy.cuts} replies cut, {sent} sent")
        await _repeat_after_erasure(service, client, late, outcome)
    return outcome


async def _run_all(enrolments: list[Enrolment], client: Client) -> None:
    waiting = iter(enrolments)

    async def work() -> None:
        for enrolment in waiting:
            await enrolment.send_until_answered(client)

    await asyncio.gather(*(work() for _ in range(CLIENTS)))


async def _check_control(client: Client, cut_client: Client, outcome: Outcome, count: int) -> None:
    """Enrol without keys, and see that cut replies make persons twice."""
    enrolments = [Enrolment(at, None, None) for at in range(count)]
    await _run_all(enrolments, cut_client)
    stored = await client.list_persons()
    outcome.require_control(len(stored) > count, f"without keys {count} enrolments make {len(stored)} persons")
    for person in stored:
        (await client.http.delete(f"/v1/collections/default/persons/{person['id']}")).raise_for_status()


async def _count(client: Client, enrolments: list[Enrolment], outcome: Outcome) -> None:
    stored = {person["id"] for person in await client.list_persons()}
    known = {one.person_id for one in enrolments}
    for enrolment in enrolments:
        outcome.check(enrolment.person_id in stored, f"{enrolment.person_id or 'somebody unanswered'} is missing")
    outcome.failures += [f"{one} is there twice" for one in sorted(stored - known)]


async def _repeat_after_erasure(service: Service, client: Client, late: list[Enrolment], outcome: Outcome) -> None:
    for enrolment in late:
        (await client.http.delete(f"/v1/collections/default/persons/{enrolment.person_id}")).raise_for_status()
    before = len(await client.list_persons())
    statuses = [(await enrolment.send(client)).status_code for enrolment in late]
    after = len(await client.list_persons())
    for status in statuses:
        outcome.check(status == 410, f"an erased person's enrolment, sent again, is answered with {status}")
    outcome.check(after == before, f"{after - before} of {len(late)} erased persons were stored again")
