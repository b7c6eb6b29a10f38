"""500 hostile names, metadata, consents and file names: each is shown as it is, and does nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from playwright.async_api import Page, expect
from sqlalchemy import text
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.browser.hostile import HOSTILE_NAMES
from tests.browser.test_console_people import as_file
from tests.faces import portrait

from vultus.domain import Role
from vultus.utils.ids import new_id

pytestmark = NO_CHROMIUM
PAGE_SIZE = 30
TEXTS = "(all) => all.map((one) => one.textContent)"
PLAIN = {"UL", "LI", "A", "SPAN", "STRONG", "BDI", "DL", "DT", "DD", "DIV", "P", "OL", "B"}
FILE_NAMES = [name for name in HOSTILE_NAMES[::4] if "\r" not in name and "\n" not in name]
"""Of files that no picture is in, so that each is refused at once."""

PERSONS = """
INSERT INTO persons (id, collection_id, name, external_id, metadata, created_at, updated_at)
SELECT id, :space, name, name, '{}', now() + number * interval '1 ms', now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:names AS text[])) WITH ORDINALITY AS named (id, name, number)
"""
CONSENTS = """
INSERT INTO consents (id, person_id, collection_id, purpose, recorded_by, evidence_ref, granted_at)
SELECT id, :person, :space, name, name, name, now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:names AS text[])) AS named (id, name)
"""


@dataclass
class Guests:
    """A gallery of persons with hostile names, the first of whom has a face."""

    gallery: str
    first: str


@pytest.fixture
async def guests(site: Site) -> Guests:
    """Also names that the service refuses, as if they had come into the database in another way."""
    gallery = await site.make_gallery()
    registered = await site.api.register(portrait(), collection=gallery, name="Ada")
    first, space = registered["person"]["id"], registered["collection_id"]
    ids = [str(new_id()) for _ in HOSTILE_NAMES]
    rows = {"space": space, "person": first, "ids": ids, "names": HOSTILE_NAMES}
    metadata = json.dumps({name: [name] for name in HOSTILE_NAMES})
    async with site.api.services.database.transaction() as work:
        await work._session.execute(text(PERSONS), rows)
        await work._session.execute(text(CONSENTS), rows)
        update = "UPDATE persons SET name = :name, metadata = CAST(:metadata AS jsonb) WHERE id = :id"
        await work._session.execute(text(update), {"name": HOSTILE_NAMES[0], "metadata": metadata, "id": first})
    return Guests(gallery, first)


async def read_names(page: Page, place: str) -> list[str]:
    """Return the texts of others in a part of the page, in which is nothing but plain elements."""
    shown = page.locator(place)
    elements = "(one) => [...new Set([...one.querySelectorAll('*')].map((inner) => inner.tagName))]"
    assert set(await shown.evaluate(elements)) <= PLAIN
    names: list[str] = await shown.locator("bdi").evaluate_all(TEXTS)
    return names


async def test_the_list_of_people(visit: Visit, guests: Guests) -> None:
    page = await visit.open(await visit.site.make_key(Role.ADMIN, guests.gallery))
    rows = page.locator(".people > li")
    for pages in range(1, len(HOSTILE_NAMES) // PAGE_SIZE + 1):
        await expect(rows).to_have_count(pages * PAGE_SIZE)
        await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(len(HOSTILE_NAMES) + 1)

    # The first person has no id of their own; the others' names stand where their ids do, too.
    assert sorted(await read_names(page, ".people")) == sorted([*HOSTILE_NAMES * 2, HOSTILE_NAMES[0]])
    await page.set_viewport_size({"width": 320, "height": 640})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_a_person_with_metadata_and_consents(visit: Visit, guests: Guests) -> None:
    page = await visit.open(await visit.site.make_key(Role.ADMIN, guests.gallery), f"#/people/{guests.first}")
    await expect(page.locator("h1 bdi")).to_have_text(HOSTILE_NAMES[0])
    keys_and_values = [part for name in HOSTILE_NAMES for part in (name, json.dumps([name], ensure_ascii=False))]
    shown = await read_names(page, ".facts")

    assert sorted(shown) == sorted(keys_and_values)
    consents = await page.locator("[aria-labelledby=consents] bdi").evaluate_all(TEXTS)
    assert sorted(consents) == sorted(["Tests", "tests@example.org", *HOSTILE_NAMES * 3])
    await page.get_by_role("button", name="Erase").click()
    await expect(page.get_by_role("dialog")).to_contain_text(HOSTILE_NAMES[0])


async def test_names_of_files(visit: Visit, guests: Guests) -> None:
    page = await visit.open(await visit.site.make_key(Role.ADMIN, guests.gallery), "#/recognise")
    files = [as_file(b"no picture", name) for name in FILE_NAMES]
    await page.locator(".dropzone input").set_input_files([*files, as_file(portrait(mirror=True), HOSTILE_NAMES[1])])
    await expect(page.locator(".results > section")).to_have_count(len(files) + 1)
    await expect(page.locator(".results > [aria-busy=true]")).to_have_count(0)
    await expect(page.locator(".headline")).to_contain_text(HOSTILE_NAMES[0])
    titles = await page.locator(".results h2 bdi").all_inner_texts()
    assert len(titles) == len(files) + 1

    await page.evaluate("location.hash = '#/people/new'")
    await page.locator(".dropzone input").set_input_files(files[:40])
    await expect(page.locator(".photos > li.refused")).to_have_count(40)


@pytest.mark.parametrize("path", ["people/%3Cscript%3E", "%E0%A4%A", "people/..%2F..%2Fkeys", "people/new/x/y", "a/b"])
async def test_addresses(visit: Visit, guests: Guests, path: str) -> None:
    page = await visit.open(await visit.site.make_key(Role.ADMIN, guests.gallery), f"#/{path}")
    await expect(page.locator("main [aria-busy=true]")).to_have_count(0)
    await expect(page.locator("main :is(h1, [role=alert])").first).to_be_visible()
