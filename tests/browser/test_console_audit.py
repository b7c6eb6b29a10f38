"""The audit record: who changed what, filters, what happened to a person, files."""

from __future__ import annotations

import csv
import json
from typing import Any

from playwright.async_api import Page, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.callers import CALLER
from tests.faces import portrait

from vultus.domain import Permission, Principal, Role

pytestmark = NO_CHROMIUM


async def save(page: Page, kind: str) -> str:
    """Return the text of the file that the page exports."""
    async with page.expect_download() as download:
        await page.get_by_role("button", name=f"Export {kind}").click()
    return (await (await download.value).path()).read_text()


async def test_the_record_says_who_changed_which_rule_and_from_what(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    officer, _ = await site.api.services.access.create_key(CALLER, "=Grace", Role.ADMIN)
    change: Any = site.api.services.collections.update_collection
    await change(
        Principal.from_key(officer, "req-17"), gallery, retention_days=30, policy={"enrol": {"min_size_px": 64}}
    )
    page = await visit.open(await site.make_key(Role.ADMIN), "#/audit")
    await page.get_by_label("Who").select_option(label=f"Key =Grace (…{str(officer.id)[-6:]})")
    entries = page.locator(".entries > li")
    await expect(entries).to_have_count(1)
    await expect(entries).to_contain_text("Settings changed")
    await expect(entries.get_by_text("Photos to be enrolled · Smallest face (pixels) 40 → 64")).to_be_visible()
    await expect(entries.get_by_text("Longest consent (days) none → 30")).to_be_visible()
    await expect(entries).to_contain_text("req-17")
    await visit.show("audit")

    (entry,) = json.loads(await save(page, "JSON"))
    (row,) = csv.DictReader((await save(page, "CSV")).splitlines())
    assert entry["detail"]["changes"]["retention_days"] == {"from": None, "to": 30}
    assert (row["actor"], row["request_id"]) == (f"key:{officer.id}", "req-17")
    assert row["who"].startswith("Key =Grace")
    assert json.loads(row["detail"]) == entry["detail"]

    await page.get_by_label("What").select_option("Key revoked")
    await expect(page.get_by_text("Nothing was recorded that passes these filters")).to_be_visible()


async def test_what_happened_to_a_person_is_a_step_from_their_page(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    registered = await site.api.register(portrait(), collection=gallery, name="Ada")
    person = f"#/people/{registered['person']['id']}"
    await site.api.register(portrait(mirror=True), collection=gallery, name="Eve", allow_lookalike="true")
    page = await visit.open(await site.make_key(Role.ADMIN, gallery), person)
    await page.get_by_role("link", name="What happened to this person").click()

    await expect(page.locator(".entries > li")).to_have_count(1)
    await expect(page.locator(".entries > li")).to_contain_text("Person enrolled")
    await expect(page.locator(".entries > li")).to_contain_text("without a known name")
    await page.get_by_label("Id of a person").fill("nobody")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("Something in the form is wrong")

    await page.goto("about:blank")
    await visit.open(await site.make_key(Role.MANAGE, gallery), person)
    await expect(page.get_by_role("heading", name="Ada")).to_be_visible()
    assert await page.get_by_role("link", name="What happened to this person").count() == 0
    assert await page.get_by_role("link", name="Audit").count() == 0


async def test_the_record_comes_in_pages_and_names_no_keys_to_those_who_may_not_list_them(
    visit: Visit, site: Site
) -> None:
    for at in range(51):
        await site.api.services.access.create_key(CALLER, f"many-{at}", Role.RECOGNIZE)
    page = await visit.open(await site.make_key({Permission.AUDIT, Permission.RECOGNIZE}), "#/audit")
    entries = page.locator(".entries > li")
    await expect(entries).to_have_count(50)
    await page.get_by_role("button", name="Show more").click()
    await expect(entries.nth(50)).to_be_focused()
    assert not [url for url in visit.asked if "/v1/keys" in url]
