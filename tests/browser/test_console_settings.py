"""Settings of a collection: explained rules, refused values, undo, changes of somebody else; its creation and end."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Page, Route, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.callers import CALLER
from tests.faces import portrait

from vultus.domain import Permission, Role

pytestmark = NO_CHROMIUM


async def read(site: Site, gallery: str) -> Any:
    """Return a collection as the API shows it."""
    return (await site.api.client.get(f"/v1/collections/{gallery}")).json()


async def open_settings(visit: Visit, gallery: str, key: str) -> Page:
    """Sign in with a key of a collection, and go to its settings, every group of rules open."""
    page = await visit.open(key, "#/settings")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Settings · {gallery}")
    await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return page


async def test_a_rule_is_explained_changed_saved_and_undone(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await open_settings(visit, gallery, await site.make_key(Role.ADMIN, gallery))
    await visit.show("settings")
    before = (await read(site, gallery))["policy"]
    rate = page.get_by_label("Strangers taken for one another", exact=True)
    await expect(rate).to_have_value("0.01")
    await expect(page.locator("#policy-target_fmr-why")).to_contain_text("Default: 0.01 (1 in 100)")
    await expect(page.locator("#policy-enrol-max_yaw_deg-why")).to_contain_text("From 0 to 90")
    await expect(page.get_by_role("button", name="Save")).to_be_hidden()

    await page.get_by_label("Fixed threshold", exact=True).fill("0.97")
    await expect(rate).to_have_value("")
    size = page.locator("#policy-enrol-min_size_px")
    await size.fill("64")
    await expect(page.get_by_text("4 changes")).to_be_visible()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").filter(has_text="Saved")).to_contain_text("Smallest face (pixels): 40 → 64")
    await visit.show("settings-saved")
    saved = (await read(site, gallery))["policy"]
    assert (saved["threshold"], saved["target_fmr"], saved["enrol"]["min_size_px"]) == (0.97, None, 64)
    assert saved["recognize"] == before["recognize"]

    await page.get_by_role("button", name="Undo").click()
    await expect(size).to_have_value("40")
    await expect(page.get_by_role("status").filter(has_text="Saved")).to_contain_text("64 → 40")
    assert (await read(site, gallery))["policy"] == before

    await size.fill("50")
    await page.get_by_role("button", name="Default: Photos to be enrolled · Smallest face (pixels)").click()
    await expect(size).to_have_value("40")
    await expect(size).to_be_focused()
    await expect(page.get_by_role("button", name="Save")).to_be_hidden()


async def test_a_refused_value_is_explained_at_its_field_and_changes_nothing(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await open_settings(visit, gallery, await site.make_key(Role.ADMIN, gallery))
    before = await read(site, gallery)
    yaw = page.locator("#policy-enrol-max_yaw_deg")
    await yaw.fill("120")
    await page.get_by_label("Pictures until a face counts", exact=True).fill("1.5")
    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_text("must be at most 90")).to_have_id("policy-enrol-max_yaw_deg-wrong")
    await expect(page.get_by_text("must be a whole number")).to_have_id("policy-tracks-confirm_frames-wrong")
    await expect(yaw).to_be_focused()
    await expect(yaw).to_have_accessible_description(re.compile("must be at most 90"))
    await expect(yaw).to_have_attribute("aria-invalid", "true")
    await visit.show("settings-refused")
    assert await read(site, gallery) == before
    await page.get_by_role("button", name="Discard").click()
    await expect(yaw).to_have_value("45")
    await expect(yaw).to_have_attribute("aria-invalid", "false")


async def test_what_somebody_else_changed_meanwhile_is_not_overwritten_in_silence(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await open_settings(visit, gallery, await site.make_key(Role.ADMIN, gallery))
    theirs = {"policy": {"margin": 0.2, "enrol": {"min_sharpness": 70}}}
    assert (await site.api.client.patch(f"/v1/collections/{gallery}", json=theirs)).status_code == 200
    margin = page.get_by_label("Lead over the next person", exact=True)
    await margin.fill("0.1")
    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_text("Somebody else has set this to 0.2 meanwhile.")).to_be_visible()
    await expect(page.locator("#policy-enrol-min_sharpness")).to_have_value("70")
    assert (await read(site, gallery))["policy"]["margin"] == 0.2
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").filter(has_text="Saved")).to_contain_text("0.2 → 0.1")
    now = (await read(site, gallery))["policy"]
    assert (now["margin"], now["enrol"]["min_sharpness"]) == (0.1, 70)


async def test_what_cannot_be_undone_is_said_before(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.register(portrait(), collection=gallery, name="Ada", consent_granted_at="2020-01-01T00:00:00Z")
    await site.api.services.collections.update_collection(CALLER, gallery, policy={"keep_crops": True})
    page = await open_settings(visit, gallery, await site.make_key(Role.ADMIN, gallery))
    await page.get_by_label("Keep cut-out faces", exact=True).uncheck()
    await page.get_by_label("Longest consent (days)", exact=True).fill("30")
    await page.get_by_role("button", name="Save").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("All cut-out faces that were kept are deleted. Earlier consents are shortened")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_contain_text("1 consent is older than that")
    assert (await read(site, gallery))["policy"]["keep_crops"] is True
    await dialog.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved; it holds from now on")).to_be_visible()
    now = await read(site, gallery)
    assert (now["policy"]["keep_crops"], now["retention_days"]) == (False, 30)


async def test_a_collection_is_created_renamed_and_deleted_and_the_chooser_follows(visit: Visit, site: Site) -> None:
    page = await visit.open(await site.make_key(Role.ADMIN), "#/settings")
    await page.get_by_role("button", name="Create a collection").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("new visitors")
    await expect(dialog.get_by_label("Network")).to_contain_text("builtin")
    await dialog.get_by_role("button", name="Create").click()
    await expect(dialog.get_by_role("alert")).to_be_visible()
    await dialog.get_by_label("Name").fill("visitors-1.0")
    await visit.show("settings-create")
    await dialog.get_by_role("button", name="Create").click()
    chooser = page.locator(".collection select")
    await expect(chooser).to_have_value("visitors-1.0")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Settings · visitors-1.0")
    await site.api.register(portrait(), collection="visitors-1.0", name="Ada")

    await page.get_by_text("Name and search").click()
    await page.get_by_label("Name", exact=True).fill("guests-1.0")
    await page.get_by_role("button", name="Save").click()
    await expect(chooser).to_have_value("guests-1.0")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Settings · guests-1.0")
    await page.get_by_label("Name", exact=True).fill("lost")
    await page.get_by_role("button", name="Create a collection").click()
    question = page.get_by_role("dialog", name="Leave what is filled in?")
    await question.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_label("Name", exact=True)).to_have_value("lost")
    await page.get_by_role("button", name="Discard").click()

    await page.evaluate("location.hash = '#/people'")
    await page.evaluate("location.hash = '#/settings'")
    await page.get_by_role("button", name="Delete the collection").click()
    await expect(dialog).to_contain_text("1 person, 1 face.")
    await visit.show("settings-delete")
    await dialog.get_by_label("Type guests-1.0 to confirm").fill("guests-1x0")
    await dialog.get_by_role("button", name="Erase for good").click()
    await expect(dialog).to_be_visible()
    await dialog.get_by_label("Type guests-1.0 to confirm").fill("guests-1.0")
    await dialog.get_by_role("button", name="Erase for good").click()
    await expect(page.get_by_role("status").filter(has_text="is deleted")).to_contain_text("guests-1.0")
    await expect(chooser).to_have_value("default")
    assert (await site.api.client.get("/v1/collections/guests-1.0")).status_code == 404


async def test_who_leaves_while_a_collection_is_deleted_is_not_led_elsewhere(visit: Visit, site: Site) -> None:
    gallery, deleted, read_on = await site.make_gallery(), asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        if deleted.is_set():
            await read_on.wait()
        await route.continue_()

    page = await visit.open(await site.make_key(Role.ADMIN), "#/settings")
    await page.locator(".collection select").select_option(gallery)
    await page.route("**/v1/collections?*", hold)
    page.on("response", lambda answer: deleted.set() if answer.request.method == "DELETE" else None)
    await page.get_by_role("button", name="Delete the collection").click()
    await page.get_by_label(f"Type {gallery} to confirm").fill(gallery)
    await page.get_by_role("button", name="Erase for good").click()
    await deleted.wait()
    await page.evaluate("location.hash = '#/people'")
    read_on.set()
    await expect(page.get_by_role("heading", level=1, name="People")).to_be_visible()
    await page.wait_for_timeout(200)

    assert page.url.endswith("#/people")


async def test_keys_are_offered_no_more_than_they_may_do(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await open_settings(
        visit, gallery, await site.make_key({Permission.CONFIGURE, Permission.RECOGNIZE}, gallery)
    )
    assert await page.get_by_role("button", name="Create a collection").count() == 0
    assert await page.get_by_label("Name", exact=True).count() == 0

    await page.goto("about:blank")
    await visit.open(await site.make_key(Role.MANAGE, gallery), "#/settings")
    await expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()


async def test_the_overview_shows_throughput_by_process_to_those_who_look_after_all_of_it(
    visit: Visit, site: Site
) -> None:
    page, answered = visit.page, []

    async def answer(route: Route) -> None:
        """Answer as if a proxy had asked another server every second time."""
        response = await route.fetch()
        answered.append(await response.json())
        other = "019f0000-0000-7000-8000-000000000000" if len(answered) % 2 == 0 else answered[-1]["process_id"]
        await route.fulfill(response=response, json=answered[-1] | {"process_id": other})

    await page.route("**/v1/load", answer)
    await page.clock.install()
    await visit.open(await site.make_key(Role.ADMIN), "#/overview")
    section = page.get_by_role("region", name="Throughput").first
    await expect(section.locator("tbody tr")).to_have_count(1)
    await expect(section.locator("tbody tr td").first).to_have_text("–")
    await site.api.recognize(portrait())
    for lines in (2, 2, 2):
        async with page.expect_response("**/v1/load"):
            await page.clock.run_for(5_000)
        await expect(section.locator("polyline")).to_have_count(lines)
    await expect(section.locator("tbody tr").first.locator("td").nth(3)).to_contain_text("ms")
    await expect(section.locator("tbody tr").first.locator("td").nth(2)).not_to_have_text("0.0")
    await visit.show("overview-throughput")

    await page.goto("about:blank")
    await visit.open(await site.make_key(Role.ADMIN, "default"), "#/overview")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await expect(page.locator(".numbers")).to_be_visible()
    assert await page.get_by_role("region", name="Throughput").count() == 0
