"""The page of events in a real browser: cards change while somebody walks by, and no event is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from playwright.async_api import BrowserContext, Page, expect
from sse_starlette.sse import AppStatus
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.callers import CALLER
from tests.faces import portrait
from tests.server.sockets import running

from vultus.domain import Band, Role
from vultus.domain.sightings import Appeared, Left, Recognised, Sighting, SourceLost, Spoof, Unknown

pytestmark = NO_CHROMIUM


class Lookout:
    """A source that is set up in a gallery, and what it tells to have seen."""

    def __init__(self, site: Site, gallery: str, collection: UUID, source: UUID) -> None:
        self.site, self.gallery = site, gallery
        self.ids: dict[str, Any] = {"collection_id": collection, "origin_kind": "source", "origin_id": source}
        self.began = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)

    @classmethod
    async def begin(cls, site: Site, name: str = "front door") -> Lookout:
        gallery = await site.make_gallery()
        source = {"name": name, "collection": gallery, "address": "http://127.0.0.1:9/mjpeg", "enabled": False}
        created = (await site.api.client.post("/v1/sources", json=source)).json()
        return cls(site, gallery, UUID(created["collection_id"]), UUID(created["id"]))

    async def tell(self, kind: type[Sighting], seconds: float = 0, **more: Any) -> None:
        at = self.began + timedelta(seconds=seconds)
        await self.site.api.services.sightings.record(CALLER, kind(**self.ids, at=at, **more))

    async def open(self, visit: Visit, role: Role = Role.MANAGE, query: str = "") -> Page:
        page = await visit.open(await self.site.make_key(role, self.gallery), f"#/events{query}")
        await expect(page.get_by_role("status").filter(has_text="up to date")).to_be_visible()
        return page


async def test_a_card_changes_while_somebody_walks_by_and_goes_when_they_are_erased(busy_visit: Visit) -> None:
    api, watch = busy_visit.site.api, await Lookout.begin(busy_visit.site)
    page = await watch.open(busy_visit)
    await expect(page.locator(".line").first).to_contain_text("front door")
    ada = UUID((await api.register(portrait(), collection=watch.gallery, name="Ada"))["person"]["id"])
    await expect(page.locator(".line").filter(has_text="Ada")).to_be_visible()
    walks = page.locator(".walk")

    first, second, stranger, picture = uuid4(), uuid4(), uuid4(), uuid4()
    await watch.tell(Appeared, track_id=first)
    await expect(walks).to_contain_text("Not decided yet")
    await watch.tell(Recognised, 1, track_id=first, person_id=ada, band=Band.NEAR_THRESHOLD)
    await expect(walks.get_by_role("link", name="Ada")).to_be_visible()
    await expect(page.locator("#announcer")).to_have_text("Ada")
    await expect(walks).to_contain_text("Only just above the threshold")
    await expect(walks).to_contain_text("still there")
    await watch.tell(Appeared, 5, track_id=second)
    await expect(walks).to_have_count(2)
    await watch.tell(Appeared, 6, track_id=stranger)
    await watch.tell(Unknown, 8, track_id=stranger)
    await watch.tell(Appeared, 9, track_id=picture)
    await watch.tell(Spoof, 10, track_id=picture)
    await watch.tell(SourceLost, 11)
    await expect(page.locator(".line").first).to_contain_text("front door")
    await busy_visit.show("events")
    left = {"person_id": ada, "since": watch.began, "track_ids": (first, second)}
    await watch.tell(Left, 12, track_id=second, **left)
    known = walks.filter(has_text="Ada")
    await expect(known.locator(".steps li")).to_have_count(4)
    await expect(known).to_contain_text("left")
    await expect(walks).to_have_count(3)
    await expect(walks.filter(has_text="Somebody unknown")).to_contain_text("nobody who is enrolled")
    await expect(walks.filter(has_text="Not a live face")).to_contain_text("picture or a screen")

    await api.client.delete(f"/v1/collections/{watch.gallery}/persons/{ada}")
    await expect(walks).to_have_count(2)
    await expect(page.get_by_text("Ada")).to_have_count(0)
    await page.reload()
    await watch.open(busy_visit)
    await expect(walks.filter(has_text="Somebody unknown")).to_be_visible()
    await expect(page.get_by_text("Ada")).to_have_count(0)


async def test_filters_stand_in_the_address_and_older_events_come_page_by_page(
    busy_visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = await Lookout.begin(busy_visit.site)
    registered = await busy_visit.site.api.register(portrait(), collection=watch.gallery, name="Ada")
    ada = UUID(registered["person"]["id"])
    for at in range(120):
        await watch.tell(Unknown, at / 10, track_id=uuid4())
    await watch.tell(Recognised, 20, track_id=uuid4(), person_id=ada, band=Band.CLEAR)
    page = await watch.open(busy_visit)
    walks = page.locator(".walk:visible")
    await expect(walks).to_have_count(100)
    await page.get_by_role("button", name="Show older ones").click()
    await expect(walks).to_have_count(121)
    await expect(page.get_by_role("button", name="Show older ones")).to_be_hidden()

    await page.get_by_text("Filters").click()
    await page.get_by_label("What").select_option("Known persons")
    await expect(walks).to_have_count(1)
    assert page.url.endswith("#/events?kind=known")
    await watch.tell(Unknown, 21, track_id=uuid4())
    await watch.tell(Recognised, 22, track_id=uuid4(), person_id=ada, band=Band.CLEAR)
    await expect(walks).to_have_count(2)
    await page.get_by_role("combobox", name="Person").select_option("Ada")
    await expect(page).to_have_url(f"{busy_visit.site.address}/console#/events?kind=known&person={ada}")
    await expect(walks).to_have_count(2)
    await page.get_by_role("combobox", name="Person").select_option("All")
    await page.get_by_label("What").select_option("Changes of data")
    await expect(page.locator(".line:visible").filter(has_text="Ada")).to_have_count(1)
    await page.get_by_label("What").select_option("Known persons")
    await page.get_by_label("Until").fill("2020-01-01T00:00")
    await expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()
    await page.get_by_label("Until").fill("")
    await page.goto("about:blank")
    await watch.open(busy_visit, query=f"?person={ada}&source={watch.ids['origin_id']}")
    await expect(walks).to_have_count(2)
    await expect(page.get_by_role("combobox", name="Person")).to_have_value(str(ada))
    await expect(page.get_by_role("combobox", name="Camera")).to_have_value(str(watch.ids["origin_id"]))


async def test_a_server_that_is_started_anew_under_the_page_costs_no_event(
    serve_site: Callable[..., Any], context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AppStatus, "should_exit", False)
    async with serve_site(sources={"allowed": "127.0.0.1"}) as site:
        services = site.api.services
        async with services.jobs.run("follow", services.event_follower.follow, interval_s=None):
            watch = await Lookout.begin(site)
            page = await watch.open(Visit(await context.new_page(), site))
            walks, state = page.locator(".walk"), page.locator(".head .badge")
            tracks = [uuid4() for _ in range(6)]
            for one in tracks[:2]:
                await watch.tell(Unknown, track_id=one)
            await expect(walks).to_have_count(2)
            site.live.server.handle_exit(signal.SIGTERM, None)
            await expect(state).to_have_text("Connection lost; trying again")
            await watch.tell(Unknown, track_id=tracks[2])
            monkeypatch.setattr(AppStatus, "should_exit", False)
            async with running(site.api.client._transport.app, port=site.live.port) as second:
                await expect(state).to_have_text("up to date")
                await expect(walks).to_have_count(3)
                await watch.tell(Unknown, track_id=tracks[3])
                await expect(walks).to_have_count(4)
                steps = await page.locator(".steps li").count()
                second.server.handle_exit(signal.SIGTERM, None)
                await expect(state).to_have_text("Connection lost; trying again")
            assert steps == 4


async def test_an_empty_page_says_what_to_do(busy_visit: Visit) -> None:
    gallery = await busy_visit.site.make_gallery()
    page = await busy_visit.open(await busy_visit.site.make_key(Role.ADMIN, gallery), "#/events?kind=known")
    await expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()
    await page.get_by_label("What").select_option("All")
    await page.get_by_label("From").fill("2020-01-01T00:00")
    await page.get_by_label("From").fill("")
    await busy_visit.show("events-empty")
    await busy_visit.site.api.client.delete(f"/v1/collections/{gallery}")
    await expect(page.get_by_role("alert")).to_contain_text("It is not there")
