"""Keys: created with a role, their secret shown once, renewed and revoked, and none that may do more than one's own."""

from __future__ import annotations

import re

from playwright.async_api import Locator, Page, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.callers import CALLER

from vultus.domain import Permission, Role

pytestmark = NO_CHROMIUM


def find_key(page: Page, name: str) -> Locator:
    """Return the row of a key."""
    return page.locator(".rows > li").filter(has=page.get_by_text(name, exact=True))


async def take_secret(page: Page) -> str:
    """Return the secret that is shown once, and put it away."""
    shown = page.get_by_role("textbox", name="The secret of the key")
    secret = await shown.input_value()
    await page.get_by_role("button", name="I have kept it").click()
    await expect(shown).to_have_count(0)
    return secret


async def test_a_key_is_created_with_a_role_signed_in_with_and_revoked(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await visit.open(await site.make_key(Role.ADMIN), "#/keys")
    await page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Door of building A")
    await dialog.get_by_label("Manage: an office").check()
    await dialog.get_by_label(gallery, exact=True).check()
    await dialog.get_by_label("Last day").fill("2020-01-01")
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("must expire in the future")
    await dialog.get_by_label("Last day").fill("2099-12-31")
    await visit.show("keys-create")
    await dialog.get_by_role("button", name="Create").click()
    await expect(page.get_by_text("It is shown this once")).to_be_visible()
    await visit.show("keys-secret")
    secret = await take_secret(page)
    row = find_key(page, "Door of building A")
    for text in ("Manage: an office", gallery, "until 31 Dec 2099", "never used"):
        await expect(row).to_contain_text(text)
    await visit.show("keys")

    other = await page.context.new_page()
    guest = Visit(other, site)
    await guest.open(secret)
    await expect(other.get_by_role("heading", name="Nobody is enrolled yet")).to_be_visible()
    await row.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("dialog")).to_contain_text("refused from now on, for good")
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(row).to_be_hidden()
    await other.get_by_role("searchbox").fill("Ada")
    await expect(other.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    await page.locator("summary").filter(has_text=re.compile("ended")).click()
    await expect(find_key(page, "Door of building A").first).to_contain_text("revoked on")

    guest.check()
    held = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.body.innerHTML])")
    assert secret not in held + "".join(visit.asked)


async def test_ones_own_key_is_renewed_under_the_page_and_its_revocation_signs_out(visit: Visit, site: Site) -> None:
    _, old = await site.api.services.access.create_key(CALLER, "my own", Role.ADMIN)
    page = await visit.open(old, "#/keys")
    row = find_key(page, "my own")
    await expect(row).to_contain_text("you are signed in with it")
    await row.get_by_role("button", name="New secret").click()
    await page.get_by_label("The present secret is accepted").select_option("no longer, from now on")
    await page.get_by_role("dialog").get_by_role("button", name="New secret").click()
    secret = await take_secret(page)

    assert secret != old
    await expect(row.get_by_role("button", name="Revoke")).to_be_visible()
    await row.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("dialog")).to_contain_text("you are signed out at once")
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(page.locator("#key")).to_be_visible()
    await expect(page.get_by_role("alert")).to_contain_text("The key is not accepted")


async def test_no_key_is_offered_more_than_it_has(visit: Visit, site: Site) -> None:
    gallery, _ = await site.make_gallery(), await site.make_gallery()
    access = site.api.services.access
    await access.create_key(CALLER, "stronger", Role.ADMIN, collections=[gallery])
    await access.create_key(CALLER, "weaker", Role.ENROL, collections=[gallery])
    granted = {*Role.ENROL.permissions, Permission.KEYS}
    page = await visit.open(await site.make_key(granted, gallery), "#/keys")

    await expect(find_key(page, "weaker").get_by_role("button", name="Revoke")).to_be_visible()
    assert await find_key(page, "stronger").get_by_role("button").count() == 0
    await page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    assert await dialog.get_by_role("radio").count() == len({Role.RECOGNIZE, Role.ENROL})
    await dialog.get_by_text("Single permissions instead").click()
    assert await dialog.locator("[name=permissions]").count() == len(granted)
    assert await dialog.locator("[name=collections]").count() == 1
    await dialog.get_by_label("Name").fill("Reception")
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("name their collections")
    await dialog.get_by_label(gallery).check()
    await dialog.get_by_label("see persons and events").check()
    await dialog.get_by_role("button", name="Create").click()
    await take_secret(page)
    await expect(find_key(page, "Reception")).to_contain_text("see persons and events")

    await page.goto("about:blank")
    await visit.open(await site.make_key(Role.MANAGE), "#/keys")
    await expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
