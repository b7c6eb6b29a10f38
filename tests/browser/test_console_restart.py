"""The server restarts under every kind of page, and whoever uses it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.async_api import BrowserContext, expect
from tests.browser.conftest import NO_CHROMIUM, Visit
from tests.browser.test_console_people import as_file, consent
from tests.faces import portrait

from vultus.domain import Role

pytestmark = NO_CHROMIUM


async def test_pages_outlive_a_restart_of_the_server(serve_site: Callable[..., Any], context: BrowserContext) -> None:
    async with serve_site() as site:
        visit = Visit(await context.new_page(), site)
        gallery = await site.make_gallery()
        body = {"name": "Ada", "consent": {"purpose": "Tests", "recorded_by": "tests"}}
        await site.api.client.post(f"/v1/collections/{gallery}/persons", json=body)
        page = await visit.open(await site.make_key(Role.ADMIN, gallery))
        alert, again = page.get_by_role("alert"), page.get_by_role("button", name="Try again")
        await expect(page.locator(".people > li")).to_have_count(1)
        pages = await visit.list_pages()

        await site.stop()
        for path in pages:  # what it cannot load it says, and that it can be tried again
            await page.evaluate("(path) => { location.hash = `#/${path}`; }", path)
            await expect(page.locator("main [aria-busy=true]")).to_have_count(0)
            for text in await alert.all_inner_texts():
                assert "The server does not answer" in text
        await page.evaluate("location.hash = '#/people'")
        await expect(alert).to_contain_text("The server does not answer")
        await site.start()
        await again.click()
        await expect(page.locator(".people > li")).to_have_count(1)
        await expect(alert).to_have_count(0)

        await page.get_by_role("link", name="Add a person").click()
        await consent(page, "Eve")
        await site.stop()
        await page.locator(".dropzone input").set_input_files(as_file(portrait()))
        await expect(page.locator(".photos > li.failed")).to_contain_text("The server does not answer")
        await expect(page.get_by_role("button", name="Register", exact=True)).to_be_disabled()
        await site.start()
        await again.click()
        await expect(page.locator(".photos > li.usable")).to_be_visible()
        await site.stop()
        await page.get_by_role("button", name="Register", exact=True).click()
        await expect(alert).to_contain_text("The server does not answer")
        await site.start()
        await page.get_by_role("button", name="Register", exact=True).click()
        await expect(page.get_by_text("1 face is enrolled")).to_be_visible()

        await page.get_by_role("link", name="Recognise").click()
        await site.stop()
        await page.locator(".dropzone input").set_input_files(as_file(portrait()))
        await expect(alert).to_contain_text("The server does not answer")
        await site.start()
        await again.click()
        await expect(page.locator(".headline")).to_contain_text("Eve")
        visit.check()
