"""Calibration: a threshold understood by looking at it, applied and taken back; who is most alike."""

from __future__ import annotations

import numpy as np
from playwright.async_api import Page, Route, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.browser.test_console_pages import CHECK, axe
from tests.galleries import enrol, people

from vultus.domain import Permission, Role

__all__ = ["axe"]
pytestmark = NO_CHROMIUM


async def make_measurable_gallery(site: Site, persons: int = 40) -> tuple[str, list[str]]:
    """Create a collection of two faces per person, of whom the first and the last are most alike."""
    name = await site.make_gallery()
    vectors = people(persons, noise=0.6)
    twin = vectors[:1] + 0.01 * np.eye(128, dtype=np.float32)[1]
    vectors[-1:] = twin / np.linalg.norm(twin, axis=2, keepdims=True)
    return name, await enrol(site.api.services.database, vectors, name=name)


async def open_measured(visit: Visit, key: str) -> Page:
    page = await visit.open(key, "#/calibration")
    await expect(page.get_by_text("Measured now on")).to_be_visible()
    return page


async def read_policy(site: Site, name: str) -> dict[str, object]:
    policy = (await site.api.client.get(f"/v1/collections/{name}")).json()["policy"]
    return {key: policy[key] for key in ("threshold", "target_fmr", "target_fpir")}


async def test_the_slider_tells_what_a_threshold_costs(visit: Visit, site: Site) -> None:
    name, _ = await make_measurable_gallery(site)
    page = await open_measured(visit, await site.make_key(Role.ADMIN, name))
    slider, missed, strangers = page.get_by_role("slider"), page.locator("#missed"), page.locator("#strangers")
    await visit.show("calibration")
    before = (await missed.inner_text(), await strangers.inner_text(), await slider.get_attribute("aria-valuetext"))
    await expect(page.get_by_role("button", name="Use this threshold")).to_be_disabled()

    await slider.focus()
    await page.keyboard.press("Home")
    await expect(page.get_by_text("Laxer than now")).to_be_visible()
    lax = (await missed.inner_text(), await strangers.inner_text())
    await page.keyboard.press("End")
    await expect(page.get_by_text("Stricter than now")).to_be_visible()
    strict = (await missed.inner_text(), await strangers.inner_text())

    assert (lax, strict[0]) == (("0 of 100", "100 %"), "100 of 100")
    assert strict[1].startswith("1 in")
    assert before[:2] not in (lax, strict)
    assert before[0] in str(before[2])
    figure = page.get_by_role("img", name="How similar the faces are")
    await figure.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".readout").first).to_contain_text("One person:")
    await page.get_by_text("The numbers as a table").first.click()
    await expect(page.get_by_role("region", name="How similar the faces are").locator("tbody tr")).to_have_count(100)


async def test_a_threshold_is_applied_and_taken_back(visit: Visit, site: Site) -> None:
    name, _ = await make_measurable_gallery(site)
    page = await open_measured(visit, await site.make_key(Role.ADMIN, name))
    before = await read_policy(site, name)

    await page.get_by_role("slider").focus()
    await page.keyboard.press("ArrowLeft")
    await page.get_by_role("button", name="Use this threshold").click()
    await expect(page.get_by_role("button", name="Undo")).to_be_focused()
    applied = await read_policy(site, name)
    await expect(page.get_by_text("The threshold is fixed")).to_be_visible()
    await expect(page.get_by_text("So few of them say little")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("It is as it was before.").first).to_be_visible()

    assert isinstance(applied["threshold"], float)
    assert before == await read_policy(site, name) != applied


async def test_a_threshold_that_changes_during_a_measurement_is_the_one_of_now(visit: Visit, site: Site) -> None:
    name, _ = await make_measurable_gallery(site)

    async def change(route: Route) -> None:
        if route.request.method == "POST":
            await site.api.client.patch(f"/v1/collections/{name}", json={"policy": {"threshold": 0.7654}})
        await route.continue_()

    await visit.page.route("**/calibration", change)
    page = await open_measured(visit, await site.make_key(Role.ADMIN, name))

    await expect(page.get_by_text("The threshold is fixed")).to_be_visible()
    await expect(page.get_by_role("button", name="Use this threshold")).to_be_disabled()
    await expect(page.locator("#chosen")).to_contain_text("0.7")


async def test_a_measurement_decides_until_it_is_forgotten(visit: Visit, site: Site) -> None:
    name, _ = await make_measurable_gallery(site)
    page = await open_measured(visit, await site.make_key(Role.ADMIN, name))
    await page.get_by_role("button", name="Let this measurement decide").click()
    await expect(page.get_by_text("A measurement on this collection’s own faces says")).to_be_visible()
    await page.get_by_role("button", name="Forget the measurement").click()
    await expect(page.get_by_role("dialog")).to_contain_text("may name more strangers")
    await page.get_by_role("dialog").get_by_role("button", name="Forget the measurement").click()
    await expect(page.get_by_text("The published figures of the network say")).to_be_visible()


async def test_the_most_similar_persons_and_groups_are_shown(visit: Visit, site: Site) -> None:
    name, ids = await make_measurable_gallery(site)
    page = await open_measured(visit, await site.make_key(Role.ADMIN, name))
    pairs = page.get_by_role("region", name="The most similar persons")
    await expect(pairs).to_contain_text("the threshold does not keep them apart")
    links = [await link.get_attribute("href") for link in await pairs.get_by_role("link").all()]
    assert set(links[:2]) == {f"#/people/{ids[0]}", f"#/people/{ids[-1]}"}

    await page.get_by_role("combobox", name="Group by").select_option("site")
    await page.get_by_role("button", name="Compare the groups").click()
    groups = page.get_by_role("region", name="Error rates by group").last
    await expect(groups.locator("tbody tr")).to_have_count(2)
    await visit.show("calibration-groups")
    await expect(groups.locator("tbody th")).to_have_text(["north", "south"])


async def test_too_few_faces_and_fewer_permissions(visit: Visit, site: Site) -> None:
    name = await site.make_gallery()
    await enrol(site.api.services.database, people(3), name=name)
    key = await site.make_key({Permission.RECOGNIZE, Permission.CALIBRATE}, name)
    page = await visit.open(key, "#/calibration")

    await expect(page.get_by_text("enrol at least 15 persons")).to_be_visible()
    await expect(page.get_by_text("Published for the network, on other people")).to_be_visible()
    await page.get_by_role("slider").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#strangers")).to_contain_text("1 in")
    await expect(page.get_by_role("button", name="Use this threshold")).to_have_count(0)
    await visit.show("calibration-few")


async def test_the_figures_are_accessible_and_fit_a_phone(visit: Visit, site: Site, axe: str) -> None:
    name, _ = await make_measurable_gallery(site)
    await visit.page.add_init_script("localStorage.setItem('vultus.language', 'de')")
    page = await visit.open(await site.make_key(Role.ADMIN, name), "#/calibration")
    await expect(page.get_by_text("Jetzt gemessen an")).to_be_visible()
    await page.get_by_role("button", name="Gruppen vergleichen").click()
    await expect(page.locator("#groups ~ div .range").first).to_be_visible()
    await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    await page.evaluate(axe)
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        assert await page.evaluate(CHECK) == []
    await page.set_viewport_size({"width": 320, "height": 640})
    await visit.show("calibration-de")
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
