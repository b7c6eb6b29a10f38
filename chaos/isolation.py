"""F11: collections hold the same faces, and keys are bound to some of them; does a key learn anything of the others?

Every key searches its own collections, by vector and by photo, for persons of all of them, and asks for what others own
by name, id, cursor and reference. Other collections must be answered like collections that do not exist.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from tests.faces import portrait

from chaos.client import CONSENT_FIELDS, Client, draw_vectors
from chaos.outcome import Outcome, Plan
from chaos.service import Service, run_service

if TYPE_CHECKING:
    import httpx

    from vultus.domain import FloatArray

BAR = "0 foreign ids anywhere, 0 misses"
SHARED, OWN = 20, 40
"""Persons that every collection holds, and those it holds alone."""

SETTINGS = {"LIMITS__SEARCHES_PER_HOUR": "100000000"}
CLIENTS = 8


class Tenant(NamedTuple):
    """A collection with its persons and keys.

    Attributes:
        name: Of the collection.
        id: Of the collection.
        persons: Person ids by external id.
        vectors: By external id.
        searching: A client whose key may recognise in this collection only.
        managing: A client whose key may do everything there.
    """

    name: str
    id: str
    persons: dict[str, str]
    vectors: dict[str, FloatArray]
    searching: Client
    managing: Client


async def measure(plan: Plan) -> Outcome:
    """Make collections with bound keys, search, and ask for what is not theirs."""
    outcome, searches = Outcome(), plan.choose(8_000, 100)
    async with run_service(SETTINGS) as service, service.open_client() as admin:
        _, dimension = await admin.fetch_space()
        shared = draw_vectors(SHARED, dimension, plan.seed)
        tenants = [await _make_tenant(service, admin, at, shared, plan) for at in range(plan.choose(12, 3))]
        try:
            await _check_control(admin, tenants, outcome)
            await _search_all(tenants, searches, plan, outcome)
            await _recognize_all(tenants, outcome)
            for tenant in tenants:
                for other in tenants:
                    if other is not tenant:
                        await _ask_for_other(tenant, other, outcome)
            await _check_everybody_stays(admin, tenants, outcome)
        finally:
            for tenant in tenants:
                await tenant.searching.http.aclose()
                await tenant.managing.http.aclose()
    outcome.notes.append(f"{len(tenants)} collections, {searches:,} searches by vector")
    return outcome


async def _make_tenant(service: Service, admin: Client, at: int, shared: FloatArray, plan: Plan) -> Tenant:
    name = f"tenant-{at:02}"  # of one length: no name is the beginning of another
    made = (await admin.http.post("/v1/collections", json={"name": name})).raise_for_status().json()
    own = draw_vectors(OWN, shared.shape[1], plan.seed * 1000 + at + 1)
    vectors = {f"{name}-shared-{row}": vector for row, vector in enumerate(shared)}
    vectors |= {f"{name}-own-{row}": vector for row, vector in enumerate(own)}
    (await admin.enrol_vectors(vectors, name)).raise_for_status()
    (await admin.register_photo(portrait(scale=0.8), collection=name, external_id=f"{name}-ada")).raise_for_status()
    persons = {person["external_id"]: person["id"] for person in await admin.list_persons(name)}
    space = await admin.fetch_space()
    clients = []
    for role in ("recognize", "manage"):
        _, secret = await admin.create_key(role=role, collections=[name])
        clients.append(Client(service.port, secret))
        clients[-1].space = space  # of the default collection, which these keys do not reach
    return Tenant(name, made["id"], persons, vectors, *clients)


async def _check_control(admin: Client, tenants: list[Tenant], outcome: Outcome) -> None:
    """See that an unbound key finds foreign persons, and that they are recognised as such."""
    first, second = tenants[:2]
    answer = await admin.search_vector(second.vectors[f"{second.name}-own-0"], second.name)
    outcome.require_control(_find_foreign(answer, first, tenants), "a person of another collection in an answer")


def _find_foreign(answer: httpx.Response, tenant: Tenant, tenants: list[Tenant]) -> list[str]:
    """Return what an answer says of other collections: their ids, and ids and names of their persons."""
    others = [other for other in tenants if other is not tenant]
    words = [word for other in others for word in (other.id, *other.persons, *other.persons.values())]
    return [word for word in words if f'"{word}"' in answer.text]


async def _search_all(tenants: list[Tenant], searches: int, plan: Plan, outcome: Outcome) -> None:
    chance = random.Random(plan.seed)
    order = iter([(chance.choice(tenants), chance.choice(tenants)) for _ in range(searches)])

    async def work() -> None:
        for tenant, source in order:
            name = chance.choice(sorted(source.vectors))
            client = tenant.managing if chance.random() < 0.5 else tenant.searching
            answer = await client.search_vector(source.vectors[name], tenant.name)
            expected = name.replace(source.name, tenant.name)
            is_enrolled = "shared" in name or source is tenant
            if answer.status_code != 200:
                outcome.check(held=client is tenant.searching and answer.status_code == 403, failure=answer.text[:200])
                continue
            foreign = _find_foreign(answer, tenant, tenants)
            outcome.check(not foreign, f"a search of {tenant.name} returns {foreign[:3]}")
            person = answer.json()["person"]
            found = person and person["external_id"]
            outcome.check(found == (expected if is_enrolled else None), f"{name} in {tenant.name}: {found}")

    await asyncio.gather(*(work() for _ in range(CLIENTS)))


async def _recognize_all(tenants: list[Tenant], outcome: Outcome) -> None:
    """Recognise the photo of the person that every collection holds."""
    for tenant in tenants:
        answer = await tenant.searching.recognize_photo(portrait(), collection=tenant.name)
        found = answer.raise_for_status().json()["faces"][0]["person"]
        outcome.check(found and found["id"] == tenant.persons[f"{tenant.name}-ada"], f"{tenant.name}: {found}")
        outcome.check(not _find_foreign(answer, tenant, tenants), f"{tenant.name}: foreign ids for a photo")


async def _ask_for_other(tenant: Tenant, other: Tenant, outcome: Outcome) -> None:
    """Use names, ids, references and cursors of another collection, and those of none: the answers must be alike."""
    person, external = other.persons[f"{other.name}-ada"], f"{other.name}-ada"
    absent, nobody = f"missing-{uuid4().hex}", str(uuid4())
    http, own = tenant.managing.http, f"/v1/collections/{tenant.name}"
    page = (await http.get(f"{own}/persons", params={"limit": 1})).raise_for_status().json()
    foreign_cursor = (
        await other.managing.http.get(f"/v1/collections/{other.name}/persons", params={"limit": 1})
    ).json()
    for real, fake in (
        (f"/v1/collections/{other.name}", f"/v1/collections/{absent}"),
        (f"/v1/collections/{other.id}", f"/v1/collections/{nobody}"),
        (f"/v1/collections/{other.name}/persons", f"/v1/collections/{absent}/persons"),
        (f"/v1/collections/{other.name}/persons/{person}", f"/v1/collections/{absent}/persons/{nobody}"),
        (f"{own}/persons/{person}", f"{own}/persons/{nobody}"),
        (f"{own}/persons/external_id:{external}", f"{own}/persons/external_id:{absent}"),
        (f"{own}/persons/{person}/faces", f"{own}/persons/{nobody}/faces"),
        (f"{own}/persons/{person}/consents", f"{own}/persons/{nobody}/consents"),
    ):
        for method in ("GET", "DELETE"):
            if method == "DELETE" and real.endswith(("persons", "faces", "consents")):
                continue
            seen, expected = await http.request(method, real), await http.request(method, fake)
            alike = _strip(seen, real) == _strip(expected, fake)
            refused = seen.status_code in {403, 404}  # 403: nor may the key delete its own collection
            outcome.check(alike and refused, f"{method} {real}: {seen.status_code}, {seen.text[:150]}")
    listed = await http.get("/v1/collections")
    outcome.check(other.id not in listed.text and other.name not in listed.text, f"{tenant.name} lists {other.name}")
    cursor = {"cursor": foreign_cursor["next_cursor"], "limit": 500}
    further = await http.get(f"{own}/persons", params=cursor)
    outcome.check(not _find_foreign(further, tenant, [tenant, other]), f"{tenant.name}: a foreign cursor lists persons")
    verified = await http.post(
        "/v1/verify", data={"collection": tenant.name, "person_id": person}, files={"photo": portrait()}
    )
    outcome.check(verified.status_code == 404, f"verify against a foreign person: {verified.status_code}")
    form = {**CONSENT_FIELDS, "collection": other.name, "name": "Eve"}
    enrolled = await http.post("/v1/register", data=form, files={"photo": portrait()})
    outcome.check(enrolled.status_code == 404, f"enrol into a foreign collection: {enrolled.status_code}")
    outcome.check(page["items"], "the own list is empty")


def _strip(answer: httpx.Response, path: str) -> str:
    """Return status and body without what was asked for, and the request's id."""
    body = answer.json()
    body.pop("request_id", None)
    text = json.dumps(body)
    for part in path.split("/"):
        text = text.replace(part.removeprefix("external_id:"), "…") if len(part) > 12 or "tenant" in part else text
    return f"{answer.status_code} {text}"


async def _check_everybody_stays(admin: Client, tenants: list[Tenant], outcome: Outcome) -> None:
    for tenant in tenants:
        stored = {person["id"] for person in await admin.list_persons(tenant.name)}
        outcome.check(stored == set(tenant.persons.values()), f"{tenant.name}: persons came or went")
