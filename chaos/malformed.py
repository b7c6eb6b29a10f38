"""F3: malformed images are decoded, and sent to a server; does any raise what it should not, end a process, or hang?

Most go straight to the decoder, as a worker calls it, in processes of their own; some over HTTP, where no worker may be
replaced.
"""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

from chaos.client import Client
from chaos.images import DAMAGES, build_bombs, build_seeds, damage_photo
from chaos.outcome import Bar, Outcome, Plan
from chaos.service import run_service
from vultus.errors import VultusError
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

BAR = "0 foreign exceptions, 0 × 5xx, 0 deaths, 0 hangs over 2 s"
HANG_S = 2.0
PROCESSES = 2
CHUNK = 500
CLIENTS = 4


class Decoded(NamedTuple):
    """What came of a chunk of images.

    Attributes:
        photos: Read in spite of their damage.
        slowest_s: Processor time of the slowest, seconds.
        failures: Foreign exceptions and hangs.
    """

    photos: int
    slowest_s: float
    failures: list[str]


def decode_chunk(seed: int, count: int) -> Decoded:
    """Damage and decode images as a worker does."""
    chance, kinds = random.Random(seed), list(build_seeds())
    named = ((kind := chance.choice(kinds), damage_photo(build_seeds()[kind], chance)) for _ in range(count))
    return _decode_photos((f"{kind}, chunk {seed}, image {at}", content) for at, (kind, content) in enumerate(named))


def decode_bombs() -> Decoded:
    """Decode the files that unpack to much."""
    return _decode_photos(build_bombs().items())


def _decode_photos(photos: Iterable[tuple[str, bytes]]) -> Decoded:
    limits, side = PhotoSettings(), InferenceSettings().max_side_px
    warnings.simplefilter("ignore")  # Pillow's, of which there are as many as images
    read, slowest_s, failures = 0, 0.0, []
    for name, content in photos:
        started = time.process_time()
        try:
            EncodedPhoto.open(content, limits).decode(side)
            read += 1
        except VultusError:
            pass
        except Exception as error:  # noqa: BLE001  the very thing that is counted
            failures.append(f"{name}: {type(error).__name__}: {error}")
        took = time.process_time() - started
        slowest_s = max(slowest_s, took)
        if took > HANG_S:
            failures.append(f"{name}: {took:.1f} s")
    return Decoded(read, slowest_s, failures)


async def measure(plan: Plan) -> Outcome:
    """Decode malformed images directly, then send some."""
    outcome = Outcome()
    await asyncio.to_thread(_decode_all, plan, outcome)
    await _send_all(plan, outcome)
    outcome.notes.append(f"{len(build_seeds())} seeds, {len(DAMAGES)} kinds of damage")
    return outcome


def _decode_all(plan: Plan, outcome: Outcome) -> None:
    chunks = plan.choose(200, 1)
    decoded: list[Decoded] = []
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        jobs = {f"chunk {at}": pool.submit(decode_chunk, plan.seed * 1_000_000 + at, CHUNK) for at in range(chunks)}
        if not plan.short:
            jobs["bombs"] = pool.submit(decode_bombs)
        for name, job in jobs.items():
            try:
                decoded.append(job.result())
            except BrokenProcessPool:
                outcome.failures.append(f"a process died at {name} or just before")
    outcome.tries += chunks * CHUNK + (0 if plan.short else len(build_bombs()))
    outcome.failures += [failure for one in decoded for failure in one.failures]
    slowest_s = max((one.slowest_s for one in decoded), default=0.0)
    outcome.bars.append(Bar("slowest decode, s of processor time", slowest_s, HANG_S))
    read = sum(one.photos for one in decoded)
    outcome.require_control(0 < read < outcome.tries, f"{read:,} of {outcome.tries:,} are read in spite of the damage")


async def _send_all(plan: Plan, outcome: Outcome) -> None:
    count, chance = plan.choose(2_000, 40), random.Random(-plan.seed)
    contents = iter([damage_photo(chance.choice(list(build_seeds().values())), chance) for _ in range(count)])
    slowest: list[float] = []
    async with run_service() as service, service.open_client() as admin:
        _, key = await admin.create_key(role="recognize")
        workers = {process.pid for process in service.list_processes()}
        async with Client(service.port, key) as client:

            async def work() -> None:
                for content in contents:
                    started = time.perf_counter()
                    status = await _send(client, content)
                    slowest.append(time.perf_counter() - started)
                    outcome.check(status < 500, f"over HTTP: status {status} for {content[:40]!r}")

            await asyncio.gather(*(work() for _ in range(CLIENTS)))
        lost = workers - {process.pid for process in service.list_processes()}
        outcome.check(not lost, f"{len(lost)} processes of the server died")
    outcome.notes.append(f"{count:,} over HTTP")
    outcome.bars.append(Bar("slowest answer, s", max(slowest), HANG_S, timed=True))


async def _send(client: Client, content: bytes) -> int:
    while True:
        answer = await client.http.post("/v1/detect", files={"photo": ("photo", content)})
        if answer.status_code != 429:  # the key's limit, not the image
            return answer.status_code
        await asyncio.sleep(float(answer.headers["Retry-After"]))
