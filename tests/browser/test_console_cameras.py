"""The page of cameras in a real browser: a real source, what it shows, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from playwright.async_api import Page, expect
from sqlalchemy import text
from tests.browser.conftest import NO_CHROMIUM, Visit
from tests.browser.hostile import HOSTILE_SAMPLE
from tests.browser.test_console_events import Lookout
from tests.clips import ASTRONAUT, Clip, Walker, portrait_of, stand
from tests.faces import encoded
from tests.sources.cameras import Camera

from vultus.domain import Band, Permission, Role
from vultus.domain.sightings import Recognised

pytestmark = NO_CHROMIUM


@pytest.fixture
def camera() -> Iterator[Camera]:
    """A camera that shows the astronaut, to who has its password."""
    clip = Clip((Walker(ASTRONAUT, stand(320, 240), 160),), 1)
    made = Camera([encoded(clip.draw(0)), encoded(clip.draw(0.1))], fps=10, password="admin:geheim")
    made.start()
    yield made
    made.stop()


async def add_camera(page: Page, address: str, name: str = "front door") -> None:
    await page.get_by_role("button", name="Add a camera").first.click()
    form = page.get_by_role("dialog")
    await form.get_by_label("Name").fill(name)
    await form.get_by_label("Address").fill(address)
    await form.get_by_role("button", name="Add a camera").click()


async def test_a_camera_is_added_seen_paused_and_deleted(busy_visit: Visit, camera: Camera) -> None:
    site = busy_visit.site
    gallery = await site.make_gallery()
    await site.api.register(portrait_of(ASTRONAUT), collection=gallery, name="Ada")
    page = await busy_visit.open(await site.make_key(Role.ADMIN, gallery), "#/cameras")
    await expect(page.get_by_role("heading", name="No camera is watched yet")).to_be_visible()

    await add_camera(page, "http://10.0.0.5/mjpeg")
    await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("VULTUS_SOURCES__ALLOWED")
    await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Whoever runs the server")
    await expect(page.get_by_role("dialog")).to_contain_text("not stored")
    await busy_visit.show("cameras-form")
    await page.get_by_role("dialog").get_by_label("Address").fill(camera.url("/mjpeg", "admin:wrong@"))
    await page.get_by_role("dialog").get_by_role("button", name="Add a camera").click()
    card = page.locator(".cameras > li")
    await expect(card).to_contain_text("does not accept user and password")
    await expect(card.locator("img")).to_be_hidden()

    await card.get_by_role("button", name="Change").click()
    await page.get_by_role("dialog").get_by_label("Address").fill(camera.url("/mjpeg", "admin:geheim@"))
    await page.get_by_role("dialog").get_by_role("button", name="Save").click()
    await expect(card.get_by_role("img", name="What “front door” shows now")).to_be_visible()
    first = await card.locator("img").get_attribute("src")
    await expect(card).to_contain_text("frames a second")
    await expect(card).to_contain_text(camera.url("/mjpeg"))
    assert "geheim" not in await page.content()
    await expect(card.locator("img")).not_to_have_attribute("src", first or "")
    await busy_visit.show("cameras")

    await card.get_by_role("link", name="Events").click()
    await expect(page.locator(".walk").first).to_contain_text("Ada")
    await page.go_back()
    await card.get_by_role("button", name="Pause").click()
    await expect(card.get_by_text("paused")).to_be_visible()
    await expect(card.get_by_text("No picture")).to_be_visible()
    await expect(card.get_by_role("button", name="Resume")).to_be_focused()
    await card.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("heading", name="No camera is watched yet")).to_be_visible()


async def test_pictures_are_taken_only_while_the_page_can_be_seen(busy_visit: Visit, camera: Camera) -> None:
    site = busy_visit.site
    gallery = await site.make_gallery()
    source = {"name": "door", "collection": gallery, "address": camera.url("/mjpeg", "admin:geheim@")}
    await site.api.client.post("/v1/sources", json=source)
    await busy_visit.page.clock.install()
    page = await busy_visit.open(await site.make_key(Role.MANAGE, gallery), "#/cameras")
    await expect(page.get_by_role("img", name="door")).to_be_visible()
    assert await page.get_by_role("button", name="Change").count() == 0
    assert await page.get_by_role("button", name="Add a camera").count() == 0

    await page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true }); window.away = true;"
    )
    await page.clock.fast_forward(10_000)
    await page.wait_for_load_state("networkidle")
    asked = len(busy_visit.asked)
    for _ in range(3):
        await page.clock.fast_forward(10_000)
    assert len(busy_visit.asked) == asked
    await page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    async with page.expect_request("**/snapshot"):
        pass

    await page.goto("about:blank")
    await busy_visit.open(await site.make_key({Permission.READ}, gallery), "#/cameras")
    await expect(page.get_by_text("Your key may not see its picture")).to_be_visible()
    assert "blob:" not in await page.content()


async def test_hostile_names_and_addresses_run_nothing(busy_visit: Visit) -> None:
    site = busy_visit.site
    gallery = await site.make_gallery()
    ids = []
    for at in range(len(HOSTILE_SAMPLE)):
        source = {"name": str(at), "collection": gallery, "address": "http://127.0.0.1:9/x", "enabled": False}
        ids.append((await site.api.client.post("/v1/sources", json=source)).json()["id"])
    async with site.api.services.database.transaction() as work:
        update = text("UPDATE sources SET name = :name, label = :name WHERE id = :id")
        await work._session.execute(
            update, [{"name": n, "id": one} for n, one in zip(HOSTILE_SAMPLE, ids, strict=True)]
        )
    page = await busy_visit.open(await site.make_key(Role.ADMIN, gallery), "#/cameras")
    await expect(page.locator(".cameras > li")).to_have_count(len(ids))
    elements = "(list) => list.querySelectorAll('script, iframe, style, li img:not([alt])').length"
    assert await page.locator(".cameras").evaluate(elements) == 0
    assert await page.locator(".cameras h2 bdi").first.inner_text() == HOSTILE_SAMPLE[0]
    await page.get_by_role("button", name="Delete").first.click()
    await expect(page.get_by_role("dialog")).to_contain_text(HOSTILE_SAMPLE[0])
    await page.keyboard.press("Escape")
    await page.evaluate("location.hash = '#/events?person=<img src=x onerror=alert(1)>&kind=%3Cscript%3E&since=x'")
    await expect(page.get_by_role("alert")).to_contain_text("Something in the form is wrong")

    created = (await site.api.client.get(f"/v1/sources/{ids[0]}")).json()
    lookout = Lookout(site, gallery, UUID(created["collection_id"]), UUID(ids[0]))
    person = {"name": "Ada", "consent": {"purpose": "Tests", "recorded_by": "tests"}}
    ada = (await site.api.client.post(f"/v1/collections/{gallery}/persons", json=person)).json()["id"]
    async with site.api.services.database.transaction() as work:
        update = text("UPDATE persons SET name = :name WHERE id = :id")
        await work._session.execute(update, {"name": HOSTILE_SAMPLE[0], "id": ada})
    await lookout.tell(Recognised, track_id=uuid4(), person_id=UUID(ada), band=Band.CLEAR)
    await page.evaluate("location.hash = '#/events'")
    await expect(page.locator(".walk bdi")).to_have_text([HOSTILE_SAMPLE[0]] * 2)
