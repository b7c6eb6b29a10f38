"""Signing in and people, in a real browser: consent first, photos screened before anything counts, erasure."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Page, Route, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.callers import CALLER
from tests.faces import nobody, portrait

from vultus.domain import Permission, Role

pytestmark = NO_CHROMIUM


def as_file(content: bytes, name: str = "ada.jpg") -> Any:
    """Return a photo as a form takes it."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


async def consent(page: Page, name: str) -> None:
    """Fill in what stands before the photos."""
    await page.get_by_label("What for").fill("Entry to building A")
    await page.get_by_label("Recorded by").fill("reception")
    await page.get_by_label("The person has heard or read this, and agreed").check()
    await page.get_by_label("Name", exact=True).fill(name)


async def test_a_key_that_is_not_accepted_is_explained_in_both_languages(visit: Visit) -> None:
    page = visit.page
    await page.goto(f"{visit.site.address}/console")
    await visit.show("sign-in")
    await page.fill("#key", "vultus_" + "x" * 43)
    await page.get_by_role("button", name="Sign in").click()

    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text("The key is not accepted")
    await expect(alert).to_contain_text("unknown, revoked or expired")
    await expect(alert).to_contain_text("ask whoever manages keys")

    await page.get_by_label("Language").select_option("de")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Bei Vultus anmelden")
    assert await page.evaluate("document.documentElement.lang") == "de"


async def test_the_key_stays_in_memory_unless_it_shall_be_kept_for_the_tab(visit: Visit) -> None:
    key = await visit.site.make_key(Role.MANAGE)
    page = await visit.open(key)
    stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, document.body.innerHTML])"
    assert key not in await page.evaluate(stored) + "".join(visit.asked)
    await page.reload()
    await expect(page.locator("#key")).to_be_visible()

    await page.fill("#key", key)
    await page.get_by_label("Keep it until this tab is closed").check()
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("nav")).to_be_visible()
    for answer in (lambda route: route.abort(), lambda route: route.fulfill(status=502)):
        await page.route("**/v1/key", answer)  # nobody answers, and a proxy does for a server that is away
        await page.reload()
        await expect(page.get_by_role("alert")).to_be_visible()
        await page.unroute("**/v1/key")
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("nav")).to_be_visible()
    await page.get_by_role("button", name="Settings and sign out").click()
    await page.get_by_role("button", name="Sign out", exact=True).click()
    await expect(page.locator("#key")).to_be_visible()
    assert key not in await page.evaluate(stored) + "".join(visit.asked)


async def test_a_person_is_registered_seen_exported_and_erased(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await visit.open(await site.make_key(Role.MANAGE, gallery))
    await expect(page.get_by_role("heading", name="Nobody is enrolled yet")).to_be_visible()
    await visit.show("people-empty")
    await page.get_by_role("link", name="Add a person").click()
    await consent(page, "Ada Lovelace")
    await expect(page.locator("blockquote")).to_contain_text("Entry to building A")
    await expect(page.get_by_role("button", name="Register", exact=True)).to_be_disabled()

    await page.locator(".dropzone input").set_input_files(as_file(nobody(), "wall.jpg"))
    refused = page.locator(".photos > li")
    await expect(refused).to_contain_text("No face was found. Come closer")
    await expect(page.get_by_text("Nothing is stored until then")).to_be_visible()
    await expect(page.get_by_role("button", name="Register", exact=True)).to_be_disabled()
    await visit.show("enrol-refused")
    await refused.get_by_role("button", name="Take again").click()
    await page.get_by_role("button", name="Take the photo").click()
    await expect(refused).to_contain_text("usable")
    await page.locator(".dropzone input").set_input_files(as_file(portrait()))
    await expect(page.locator(".photos > li.usable")).to_have_count(2)
    assert (await site.api.client.get(f"/v1/collections/{gallery}")).json()["persons"] == 0
    await visit.show("enrol")

    await page.get_by_role("button", name="Register", exact=True).click()
    await expect(page.get_by_text("2 faces are enrolled")).to_be_visible()
    await expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_focused()
    await expect(page.get_by_text("until withdrawn", exact=True)).to_be_visible()
    await visit.show("person")

    async with page.expect_download() as download:
        await page.get_by_role("button", name="Export").click()
    exported = json.loads((await (await download.value).path()).read_text())
    assert exported["person"]["name"] == "Ada Lovelace"

    await page.get_by_role("button", name="Erase").click()
    await expect(page.get_by_role("dialog")).to_contain_text("2 faces and 1 consent go at once")
    await visit.show("erase")
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Erase").click()
    await page.get_by_role("button", name="Erase for good").click()
    await expect(page.get_by_role("status").filter(has_text="is erased")).to_contain_text(
        "Deleted: 2 faces and 1 consent."
    )
    await visit.show("erased")
    assert (await site.api.client.get(f"/v1/collections/{gallery}")).json()["persons"] == 0


async def test_who_is_enrolled_already_is_not_enrolled_again_under_another_name(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.register(portrait(), collection=gallery, name="Ada")
    page = await visit.open(await site.make_key(Role.MANAGE, gallery), "#/people/new")
    await consent(page, "Eve")
    await page.locator(".dropzone input").set_input_files(as_file(portrait(mirror=True)))
    await page.get_by_role("button", name="Register", exact=True).click()

    await expect(page.locator(".photos > li")).to_contain_text("enrolled already, as another person")
    await expect(page.get_by_role("button", name="Register", exact=True)).to_be_disabled()
    await page.get_by_label("I have checked").check()
    await page.get_by_role("button", name="Register", exact=True).click()
    await expect(page.get_by_text("1 face is enrolled")).to_be_visible()


async def test_what_was_said_of_a_likeness_holds_for_the_photos_it_was_said_of(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.register(portrait(), collection=gallery, name="Ada")
    page = await visit.open(await site.make_key(Role.MANAGE, gallery), "#/people/new")
    photos, checked = page.locator(".photos > li"), page.get_by_label("I have checked")

    async def remove_first_one(route: Route) -> None:
        await page.get_by_role("button", name="Remove").first.click()
        await route.continue_()

    await page.route("**/v1/register", remove_first_one)
    await consent(page, "Eve")
    files = [as_file(portrait(), "first.jpg"), as_file(portrait(mirror=True), "second.jpg")]
    await page.locator(".dropzone input").set_input_files(files)
    await page.get_by_role("button", name="Register", exact=True).click()
    await expect(photos).to_contain_text(["enrolled already, as another person"])
    await expect(photos).to_contain_text(["second.jpg"])
    await checked.check()
    await expect(page.locator(".photos > li.usable")).to_have_count(1)

    await page.locator(".dropzone input").set_input_files(as_file(portrait(), "third.jpg"))
    await expect(photos).to_contain_text(["enrolled already, as another person", "usable"])
    await expect(checked).not_to_be_checked()
    await expect(page.get_by_role("button", name="Register", exact=True)).to_be_disabled()


async def test_a_form_whose_answer_was_lost_has_one_effect_when_it_is_sent_again(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    page = await visit.open(await site.make_key(Role.MANAGE, gallery), "#/people/new")
    await consent(page, "Ada")
    await page.locator(".dropzone input").set_input_files(as_file(portrait()))
    await expect(page.locator(".photos > li.usable")).to_be_visible()
    lose = "() => { const send = fetch; fetch = async (...call) => { await send(...call); fetch = send; throw 0; }; }"
    await page.evaluate(lose)
    await page.get_by_role("button", name="Register", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    await page.get_by_role("button", name="Register", exact=True).click()

    await expect(page.get_by_text("1 face is enrolled")).to_be_visible()
    assert (await site.api.client.get(f"/v1/collections/{gallery}")).json()["persons"] == 1


async def test_people_come_in_pages_and_are_found_by_name_or_id(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    consent = {"purpose": "Tests", "recorded_by": "tests"}
    for at in range(32):  # one after the other, for that is their order in the list
        body = {"name": f"Person {at:02}", "external_id": f"E-{at}", "consent": consent}
        await site.api.client.post(f"/v1/collections/{gallery}/persons", json=body)
    page = await visit.open(await site.make_key(Role.MANAGE, gallery))
    rows = page.locator(".people li")
    await expect(rows).to_have_count(30)
    await visit.show("people")
    await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(32)

    await page.get_by_role("searchbox").fill("person 3")
    await expect(rows).to_have_count(2)
    await page.get_by_role("searchbox").fill("E-7")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("Person 07")
    await page.get_by_role("searchbox").fill("nobody")
    await expect(page.get_by_text("Try fewer letters")).to_be_visible()


async def test_what_a_key_may_not_do_is_not_offered(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    registered = await site.api.register(portrait(), collection=gallery, name="Ada")
    person = f"#/people/{registered['person']['id']}"
    page = await visit.open(await site.make_key({Permission.RECOGNIZE, Permission.READ}, gallery), person)
    await expect(page.get_by_role("heading", name="Ada")).to_be_visible()
    for offer in ("Erase", "Withdraw", "Delete", "Add photos"):
        assert await page.get_by_text(offer, exact=True).count() == 0

    await page.goto("about:blank")
    await visit.open(await site.make_key(Role.ENROL, gallery), person)
    await expect(page.get_by_role("link", name="Add photos")).to_be_visible()
    assert await page.locator("nav a").all_inner_texts() == ["Overview", "People", "Recognise", "Events", "Cameras"]
    assert await page.get_by_text("Erase", exact=True).count() == 0

    await page.goto("about:blank")
    page = await visit.open(await site.make_key(Role.RECOGNIZE, gallery), person)
    await expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
    assert await page.get_by_role("link", name="People").count() == 0
    assert len([url for url in visit.asked if "/faces?" in url]) == 2


async def test_a_key_that_ends_leads_back_to_signing_in(visit: Visit, site: Site) -> None:
    _, secret = await site.api.services.access.create_key(CALLER, "ending", Role.MANAGE)
    page = await visit.open(secret)
    keys = (await site.api.client.get("/v1/keys", params={"limit": 500})).json()["items"]
    (ending,) = [one["id"] for one in keys if one["name"] == "ending"]
    await site.api.client.delete(f"/v1/keys/{ending}")
    await page.get_by_role("searchbox").fill("x")

    await expect(page.get_by_role("alert")).to_contain_text("The key is not accepted")
    await expect(page.locator("#key")).to_be_visible()
