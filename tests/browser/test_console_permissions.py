"""Every page with every kind of key: what is offered works, and what is not offered is not there."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.faces import portrait

from vultus.domain import Permission, Role

pytestmark = NO_CHROMIUM
KEYS: dict[str, tuple[Any, set[str]]] = {
    "admin": (Role.ADMIN, set()),
    "enrol": (Role.ENROL, {"live", "audit", "keys", "settings", "webhooks"}),
    "recognize": (Role.RECOGNIZE, {"people", "live", "audit", "keys", "settings", "webhooks"}),
    "read": ({Permission.READ}, {"recognise", "live", "audit", "keys", "settings", "webhooks"}),
}
"""Of each: what it may do, and pages that it must not be offered."""

REFUSALS = {401, 403, 500, 503}


async def press_everything(visit: Visit, path: str) -> None:
    """Press every button of a page that erases nothing, one after the other."""
    page = visit.page
    buttons = page.locator("main button:visible:enabled:not(.danger)")
    for at in range(await buttons.count()):
        await buttons.nth(at).click()
        await expect(page.locator("main [aria-busy=true]")).to_have_count(0)
        while await page.locator("dialog[open]").count():
            await page.keyboard.press("Escape")
        await visit.go("nothing")
        await visit.go(path)


@pytest.mark.parametrize("kind", KEYS)
async def test_what_a_key_may_do_works_and_the_rest_is_not_offered(visit: Visit, site: Site, kind: str) -> None:
    permissions, withheld = KEYS[kind]
    may_enrol = kind in {"admin", "enrol"}
    gallery = await site.make_gallery()
    person = (await site.api.register(portrait(), collection=gallery, name="Ada"))["person"]["id"]
    page = await visit.open(await site.make_key(permissions, gallery), "#/overview")
    refused: list[str] = []
    page.on(
        "response",
        lambda answer: refused.append(f"{answer.status} {answer.url}") if answer.status in REFUSALS else None,
    )
    offered = await visit.list_pages()
    links = page.locator("nav a")
    assert await links.evaluate_all("(all) => all.map((one) => one.dataset.path)") == offered
    assert set(offered) & withheld == set()

    of_person = [f"people/{person}"] if "people" in offered else []
    for path in [*offered, *of_person, *([f"people/{person}/photos", "people/new"] if may_enrol else [])]:
        await visit.go(path)
        assert not "".join(await page.locator("main [role=alert]").all_inner_texts()), path
        if kind != "admin":  # to whom nothing is refused
            await press_everything(visit, path)
    for path in withheld if may_enrol else {*withheld, "people/new"}:
        await visit.go(path)
        await expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
    assert refused == []
