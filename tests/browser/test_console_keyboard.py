"""By keyboard alone: signing in, registering with the camera, recognising, and erasing."""

from __future__ import annotations

import re

from playwright.async_api import FileChooser, Locator, Page, expect
from tests.browser.conftest import NO_CHROMIUM, SECONDS, Site, Visit
from tests.browser.test_console_people import as_file
from tests.faces import portrait
from tests.server.sockets import wait_until

from vultus.domain import Role

pytestmark = NO_CHROMIUM
MAX_STEPS = 60
OUTLINED = """(one) => {
  const marked = [one, one.closest("label")].filter(Boolean).map((part) => getComputedStyle(part));
  return marked.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1);
}"""


async def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until something has the focus, which is seen wherever it is."""
    for _ in range(MAX_STEPS):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if not await focused.count():  # the browser's own controls, between the last and the first
            continue
        assert await focused.evaluate(OUTLINED), await focused.evaluate("(one) => one.outerHTML")
        if await target.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached")


async def fill_in(page: Page, label: str, words: str) -> None:
    await tab_to(page, page.get_by_label(label, exact=True))
    await page.keyboard.type(words)


async def press(page: Page, role: str, name: str | re.Pattern[str]) -> None:
    """Go to a button or link, and press it."""
    await tab_to(page, page.get_by_role(role, name=name, exact=True))  # type: ignore[arg-type]
    await page.keyboard.press("Enter")


async def test_the_way_from_signing_in_to_erasing(visit: Visit, site: Site) -> None:
    page = visit.page
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # long before it is needed
    await page.goto(f"{site.address}/console#/people")
    await expect(page.locator("#key")).to_be_focused()
    await page.keyboard.type(await site.make_key(Role.MANAGE, await site.make_gallery()))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="People")).to_be_focused()

    await press(page, "link", "Add a person")
    await expect(page.get_by_role("heading", name="Add a person")).to_be_focused()
    await fill_in(page, "What for", "Entry to building A")
    await fill_in(page, "Recorded by", "reception")
    await press(page, "button", "Show large")
    await expect(page.get_by_role("button", name="Close")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Show large")).to_be_focused()
    await tab_to(page, page.get_by_label("The person has heard or read this"))
    await page.keyboard.press("Space")
    await fill_in(page, "Name", "Ada")
    await press(page, "button", "Use the camera")
    await expect(page.get_by_role("button", name="Take the photo")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".photos > li.usable")).to_be_visible()
    await press(page, "button", "Register")
    await expect(page.get_by_role("heading", name="Ada")).to_be_focused()

    await press(page, "link", "Recognise")
    await expect(page.get_by_role("heading", name="Recognise")).to_be_focused()
    await tab_to(page, page.locator(".dropzone input"))
    await page.keyboard.press("Enter")
    await wait_until(lambda: choosers, SECONDS)
    await choosers[0].set_files(as_file(portrait()))
    await press(page, "link", "Ada")
    await expect(page.get_by_role("heading", name="Ada")).to_be_focused()

    await press(page, "button", "Erase")
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Erase", exact=True)).to_be_focused()
    await page.keyboard.press("Enter")
    await press(page, "button", "Erase for good")
    await expect(page.get_by_role("heading", name="People")).to_be_focused()
    await expect(page.get_by_role("status").filter(has_text="is erased")).to_be_visible()
