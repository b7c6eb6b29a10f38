"""The live page in a real browser whose camera is a film made here: the name appears over the face."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import BrowserContext, Page, expect
from sqlalchemy import text
from tests.browser.conftest import NO_CHROMIUM, SECONDS, Site, Visit
from tests.browser.hostile import HOSTILE_SAMPLE
from tests.faces import portrait
from tests.server.sockets import wait_until

from vultus.domain import Permission, Role
from vultus.live.sessions import LiveSession

pytestmark = NO_CHROMIUM
ADA = ("data-names", "Ada")


async def start(visit: Visit, gallery: str) -> tuple[Page, Any]:
    """Enrol Ada, and start the camera; return the page and what was registered, once she is named."""
    registered = await visit.site.api.register(portrait(), portrait(mirror=True), collection=gallery, name="Ada")
    page = await visit.open(await visit.site.make_key(Role.MANAGE, gallery), "#/live")
    await page.get_by_role("button", name="Start the camera").click()
    await expect(page.locator("vultus-live")).to_have_attribute(*ADA, timeout=SECONDS * 1000)
    return page, registered


def list_sessions(site: Site, registered: Any) -> list[LiveSession]:
    """Return the live sessions of a gallery."""
    space = UUID(registered["collection_id"])
    return [one for one in site.live.sessions._sessions.values() if one.ticket.collection_id == space]


async def test_names_appear_over_faces_and_go_with_the_camera(visit: Visit, site: Site) -> None:
    page, ada = await start(visit, await site.make_gallery())
    assert len(list_sessions(site, ada)) == 1
    await expect(page.locator(".tracks")).to_contain_text("Ada")
    await expect(page.locator(".history")).to_contain_text("Ada")
    await visit.show("live-running")
    await expect(page.locator(".figures")).to_contain_text("frames a second")

    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("status").first).to_have_text("Stopped.")
    await expect(page.locator("vultus-live")).to_have_attribute("data-names", "")
    blank = "pen.getImageData(0, 0, overlay.width, overlay.height).data.every((one) => !one)"
    assert await page.evaluate(f"(({{pen, overlay}}) => {blank})(document.querySelector('vultus-live'))")
    await wait_until(lambda: not list_sessions(site, ada))


async def test_nobody_is_shown_once_no_answer_comes_and_leaving_the_page_ends_the_session(
    visit: Visit, site: Site
) -> None:
    page, ada = await start(visit, await site.make_gallery())
    live = page.locator("vultus-live")
    await live.evaluate("(live) => { live.session.socket.onmessage = null; }")
    await expect(live).to_have_attribute("data-names", "")
    sent = await live.evaluate("(live) => live.session.sequence")
    await page.wait_for_function("(sent) => document.querySelector('vultus-live').session.sequence > sent", arg=sent)

    await page.get_by_role("link", name="People").click()
    await expect(page.get_by_role("heading", name="People")).to_be_focused()
    await wait_until(lambda: not list_sessions(site, ada))


async def test_names_do_nothing_but_stand_over_faces(visit: Visit, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the service refuses too, as if they had come into the database in another way."""
    monkeypatch.setattr("vultus.services.live.gallery.CHECK_INTERVAL_S", 0.0)
    page, ada = await start(visit, await site.make_gallery())
    for name in HOSTILE_SAMPLE:
        async with site.api.services.database.transaction() as work:
            update = text("UPDATE persons SET name = :name, updated_at = now() WHERE id = :id")
            await work._session.execute(update, {"name": name, "id": ada["person"]["id"]})
        shown = "name => document.querySelector('vultus-live').dataset.names === name"
        await page.wait_for_function(shown, arg=name, timeout=SECONDS * 1000)

    assert await page.get_by_role("status").first.inner_text() == "Connected."


async def test_the_page_keeps_to_its_frames_a_second(serve_site: Callable[..., Any], context: BrowserContext) -> None:
    """On a display of 143 Hz, and faster than a session may send; then the server stops."""
    await context.add_init_script("requestAnimationFrame = (step) => setTimeout(() => step(performance.now()), 7)")
    async with serve_site(live={"max_frames_per_second": 5}) as site:
        page, _ = await start(Visit(await context.new_page(), site), await site.make_gallery())
        measure = "(({session}) => [performance.now() / 1000, session.sequence])(document.querySelector('vultus-live'))"
        seen = [await page.evaluate(measure)]
        for _ in range(2):
            await page.wait_for_timeout(1500)
            seen.append(await page.evaluate(measure))

        assert all(0 < after[1] - before[1] <= 5 * (after[0] - before[0]) + 2 for before, after in pairwise(seen)), seen
        assert await page.evaluate("document.querySelector('vultus-live').session.dropped") <= 5
        await expect(page.get_by_role("status").first).to_have_text("Connected.")

        site.live.server.handle_exit(signal.SIGTERM, None)
        await expect(page.get_by_role("status").first).to_contain_text("The server stops")
        await expect(page.locator("vultus-live")).to_have_attribute("data-names", "")
        await expect(page.get_by_role("button", name="Start the camera")).to_be_enabled()


async def test_the_page_says_what_is_wrong(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await visit.open(await site.make_key({Permission.LIVE}, gallery), "#/live")
    await site.api.client.delete(f"/v1/collections/{gallery}")
    await page.get_by_role("button", name="Start the camera").click()

    await expect(page.get_by_role("alert")).to_contain_text("It is not there")
    await expect(page.get_by_role("button", name="Start the camera")).to_be_enabled()
