"""Webhooks in a real browser, with a receiver on this machine: secrets, tests, dead letters sent again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from playwright.async_api import expect
from sqlalchemy import text
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.browser.hostile import HOSTILE_NAMES
from tests.callers import CALLER
from tests.receivers import Receiver, receiving

from vultus.domain import Permission, Role
from vultus.domain.sightings import SourceLost
from vultus.services.events import dispatcher

pytestmark = NO_CHROMIUM


async def lose_source(site: Site, gallery: str) -> None:
    collection = (await site.api.client.get(f"/v1/collections/{gallery}")).json()["id"]
    lost = SourceLost(collection_id=UUID(collection), origin_id=uuid4(), at=datetime.now(UTC))
    await site.api.services.sightings.record(CALLER, lost)


async def test_a_webhook_from_its_secret_to_dead_letters_that_are_sent_again(
    busy_visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MAX_ATTEMPTS", 1)
    site, status = busy_visit.site, 204
    gallery = await site.make_gallery()
    page = await busy_visit.open(await site.make_key(Role.ADMIN, gallery), "#/webhooks")
    await expect(page.get_by_role("heading", name="No program is told anything yet")).to_be_visible()
    with receiving(Receiver(answer=lambda _: status)) as receiver:
        await page.get_by_role("button", name="Add a webhook").click()
        form = page.get_by_role("dialog")
        await form.get_by_label("Name", exact=True).fill("door")
        await form.get_by_label("Address").fill("http://10.0.0.1/hook")
        await form.get_by_role("button", name="Add a webhook").click()
        await expect(form.get_by_role("alert")).to_contain_text("url")
        await form.get_by_label("Address").fill(receiver.url)
        await busy_visit.show("webhook-form")
        await form.get_by_role("button", name="Add a webhook").click()
        secret = await page.get_by_role("textbox", name="Secret").input_value()
        assert secret.startswith("whsec_")
        await page.get_by_role("button", name="Copy").click()
        await busy_visit.show("webhook-secret")
        await page.get_by_role("button", name="I have kept it").click()
        await expect(page.get_by_role("heading", name="door")).to_be_focused()
        assert secret not in await page.content()

        receiver.secret = secret
        await page.get_by_role("button", name="Send a test").click()
        await expect(page.get_by_text("The test was accepted (status 204)")).to_be_visible()
        status = 503
        await page.get_by_role("button", name="Send a test").click()
        await expect(page.get_by_text("The test was not accepted (status 503)")).to_be_visible()
        for _ in range(3):
            await lose_source(site, gallery)
        rows = page.locator("tbody tr")
        await expect(rows.filter(has_text="failed for good")).to_have_count(3)
        await expect(rows.first).to_contain_text("503")
        await busy_visit.show("webhook")
        status = 204
        await page.get_by_role("button", name="Send again").first.click()
        await expect(page.get_by_text("1 delivery is attempted again.")).to_be_visible()
        await expect(rows.filter(has_text="delivered")).to_have_count(1)
        await page.get_by_role("button", name="Send all failed ones again").click()
        await expect(page.get_by_text("2 deliveries are attempted again.")).to_be_visible()
        await expect(rows.filter(has_text="delivered")).to_have_count(3)
        await page.get_by_role("combobox", name="State").select_option("failed for good")
        await expect(page.get_by_text("Nothing fits")).to_be_visible()
        assert len({one.id for one in receiver.messages}) == 5
        assert all(one.is_signed for one in receiver.messages)

        await page.get_by_role("button", name="New secret").click()
        await page.get_by_role("combobox", name="Use the old one too").select_option("no: it ends now")
        await page.get_by_role("dialog").get_by_role("button", name="New secret").click()
        receiver.secret = await page.get_by_role("textbox", name="Secret").input_value()
        await page.get_by_role("button", name="I have kept it").click()
        await page.get_by_role("button", name="Send a test").click()
        await expect(page.get_by_text("The test was accepted")).to_be_visible()
        assert receiver.messages[-1].is_signed
        await page.get_by_role("button", name="Switch off").click()
        await expect(page.get_by_text("disabled by a request")).to_be_visible()
        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("heading", name="No program is told anything yet")).to_be_visible()


async def test_what_a_webhook_gets_is_chosen_and_hostile_names_run_nothing(busy_visit: Visit) -> None:
    site = busy_visit.site
    gallery = await site.make_gallery()
    page = await busy_visit.open(await site.make_key(Role.ADMIN, gallery), "#/webhooks")
    await page.get_by_role("button", name="Add a webhook").click()
    form = page.get_by_role("dialog")
    await form.get_by_label("Name", exact=True).fill("x")
    await form.get_by_label("Address").fill("https://example.org/<script>alert(1)</script>")
    await form.get_by_label(gallery).check()
    await form.get_by_label("Send names").check()
    await form.get_by_role("button", name="Add a webhook").click()
    await page.get_by_role("button", name="I have kept it").click()
    await expect(page.get_by_text("with names and your ids")).to_be_visible()
    await expect(page.locator(".facts")).to_contain_text(gallery)
    await page.get_by_role("button", name="Change").click()
    await expect(form.get_by_label("Send names")).to_be_checked()
    await expect(form.get_by_label(gallery)).to_be_checked()
    await form.get_by_label("Send names").uncheck()
    await form.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("as ids of Vultus alone")).to_be_visible()

    await page.get_by_role("button", name="Change").click()
    await expect(form).to_be_visible()
    await page.evaluate("location.hash = '#/events'")
    await expect(page.get_by_role("heading", name="Events")).to_be_visible()
    await expect(form).to_have_count(0)
    assert "Events" in await page.title()
    await page.evaluate("history.back()")
    await expect(page.get_by_role("button", name="Change")).to_be_visible()

    webhook = page.url.rpartition("/")[2]
    async with site.api.services.database.transaction() as work:
        update = text(
            "UPDATE webhooks SET name = :name, url = :name, disabled_reason = :name, disabled_at = now() WHERE id = :id"
        )
        await work._session.execute(update, {"name": HOSTILE_NAMES[0], "id": webhook})
    await page.get_by_role("link", name="All webhooks").click()
    await page.get_by_role("link", name=HOSTILE_NAMES[0]).click()
    await expect(page.get_by_role("heading", name=HOSTILE_NAMES[0])).to_be_focused()
    await page.goto("about:blank")
    await busy_visit.open(await site.make_key({Permission.CONFIGURE}, gallery), f"#/webhooks/{webhook}")
    await expect(page.get_by_role("button", name="Send a test")).to_be_visible()
    await expect(page.get_by_role("button", name=re.compile("Change|Switch o"))).to_have_count(0)
    await page.goto("about:blank")
    await busy_visit.open(await site.make_key(Role.MANAGE, gallery), f"#/webhooks/{webhook}")
    await expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
    assert await page.get_by_role("link", name="Cameras").count() == 1
    assert await page.get_by_role("link", name="Webhooks").count() == 0


async def test_a_webhook_keeps_what_it_is_bound_to_where_the_page_does_not_know_it(visit: Visit, site: Site) -> None:
    page = await visit.open(await site.make_key(Role.ADMIN), "#/webhooks")
    body = {"name": "door", "url": "https://example.org/hook", "collections": [await site.make_gallery()]}
    made = (await site.api.client.post("/v1/webhooks", json=body)).json()
    await visit.go(f"webhooks/{made['id']}")
    await page.get_by_role("button", name="Change").click()
    form = page.get_by_role("dialog")
    await expect(form.get_by_role("checkbox", checked=True)).to_have_count(1)
    await form.get_by_label("Name", exact=True).fill("gate")
    await form.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", name="gate")).to_be_visible()

    kept = (await site.api.client.get(f"/v1/webhooks/{made['id']}")).json()
    await site.api.client.delete(f"/v1/webhooks/{made['id']}")
    assert (kept["name"], kept["collections"]) == ("gate", made["collections"])


async def test_who_leaves_while_a_secret_is_shown_is_not_led_elsewhere(visit: Visit, site: Site) -> None:
    page = await visit.open(await site.make_key(Role.ADMIN), "#/webhooks")
    await page.get_by_role("button", name="Add a webhook").click()
    form = page.get_by_role("dialog")
    await form.get_by_label("Name", exact=True).fill("left")
    await form.get_by_label("Address").fill("https://example.org/hook")
    await form.get_by_role("button", name="Add a webhook").click()
    await expect(page.get_by_role("textbox", name="Secret")).to_be_visible()

    await visit.go("events")
    await page.wait_for_timeout(100)

    assert page.url.endswith("#/events")
    for webhook in (await site.api.client.get("/v1/webhooks")).json()["items"]:
        await site.api.client.delete(f"/v1/webhooks/{webhook['id']}")
