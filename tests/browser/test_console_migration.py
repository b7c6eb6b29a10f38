"""Migration: another network from its choice to the end, with whom it would lose."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.async_api import BrowserContext, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.browser.test_console_pages import CHECK, axe
from tests.browser.test_console_people import as_file
from tests.faces import STRANGER, drawn, encoded, portrait
from tests.migrations import second, set_calibration

from vultus.domain import Permission, Role
from vultus.models.pipeline import FacePipeline

__all__ = ["axe", "second"]
pytestmark = NO_CHROMIUM


@pytest.fixture
async def two(serve_site: Callable[..., Any], second: FacePipeline) -> AsyncIterator[Site]:
    """A server with a second pack."""
    async with serve_site(second) as site:
        yield site


async def test_a_migration_from_its_choice_to_its_end(
    context: BrowserContext, two: Site, second: FacePipeline, monkeypatch: pytest.MonkeyPatch, axe: str
) -> None:
    name = await two.make_gallery()
    bob = await two.api.register(encoded(drawn(STRANGER)), collection=name, name="Bob")
    await two.api.client.patch(f"/v1/collections/{name}", json={"policy": {"keep_crops": True}})
    await two.api.register(portrait(), portrait(mirror=True), collection=name, name="Ada")
    visit = Visit(await context.new_page(), two)
    page = await visit.open(await two.make_key(Role.ADMIN, name), "#/migration")
    await expect(page.get_by_role("radio", name="zoomed")).to_be_checked()
    await visit.show("migration-start")

    await page.get_by_role("button", name="Start the migration").click()
    await expect(page.get_by_text("0 of 3 faces described by the new network · 3 wait")).to_be_visible()
    await two.api.services.backfill_worker.run()
    await expect(page.get_by_text("2 of 3 faces described by the new network · 1 needs you")).to_be_visible()
    left = page.get_by_role("region", name="Whom the new network does not know yet")
    await expect(left.get_by_role("link", name="Bob")).to_have_attribute("href", f"#/people/{bob['person']['id']}")
    await expect(left).to_contain_text("No picture of the face was kept.")
    await page.get_by_role("button", name="Switch to").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Persons who would not be recognised: 1")
    await page.keyboard.press("Escape")
    await page.locator(".dropzone input").set_input_files(as_file(encoded(drawn(STRANGER)), "bob.jpg"))
    await expect(left).to_contain_text("bob.jpg: described by the new network")
    await expect(page.get_by_text("3 of 3 faces described by the new network")).to_be_visible()
    await page.get_by_role("button", name="Compare").click()
    await expect(page.get_by_text("Of 3 faces compared, both say the same for 3.")).to_be_visible()
    strict = ((1e-2, 0.99998), (1e-4, 0.99999))
    with monkeypatch.context() as patch:
        calibration = replace(second.calibration, points=strict, anybody=(), worst_group=())
        set_calibration(two.api, patch, second, calibration)
        await page.get_by_role("button", name="Compare").click()
        disagreements = page.get_by_role("region", name="Disagreements").locator("tbody tr")
        await expect(disagreements).to_have_count(2)
    await expect(disagreements.first).to_contain_text(re.compile("Ada.*Ada.*right.*Nobody who is enrolled.*wrong"))
    await visit.show("migration-running")
    await page.evaluate(axe)
    assert await page.evaluate(CHECK) == []
    await page.set_viewport_size({"width": 320, "height": 640})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    await page.set_viewport_size({"width": 1280, "height": 720})

    await page.get_by_role("button", name="Switch to").click()
    await expect(page.get_by_role("heading", name="“zoomed” recognises now")).to_be_visible()
    await page.get_by_role("button", name="Switch back").click()
    await expect(page.get_by_role("heading", name="“zoomed” is being prepared")).to_be_visible()
    await page.get_by_role("button", name="Switch to").click()
    await page.get_by_role("button", name="Finish").click()
    await expect(page.get_by_role("dialog")).to_contain_text("removed for good")
    await visit.show("migration-finish")
    await page.get_by_role("dialog").get_by_role("button", name="Finish").click()
    await expect(page.get_by_text("This collection uses the network “zoomed”.")).to_be_visible()
    visit.check()


async def test_without_another_network_it_says_how_one_comes(visit: Visit, site: Site) -> None:
    name = await site.make_gallery()
    page = await visit.open(await site.make_key({Permission.RECOGNIZE, Permission.CONFIGURE}, name), "#/migration")

    await expect(page.get_by_text("VULTUS_INFERENCE__EXTRA_PACKS")).to_be_visible()
    await expect(page.get_by_role("button", name="Start the migration")).to_have_count(0)
    assert "Calibration" not in await page.locator("nav a").all_inner_texts()
