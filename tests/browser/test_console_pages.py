"""Every page of the console: recognition, hostile names, both themes, a phone's width, what a screen reader needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from playwright.async_api import Page, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.browser.test_console_events import Lookout
from tests.browser.test_console_people import as_file
from tests.faces import STRANGER, astronaut, drawn, encoded, nobody, portrait

from vultus.domain import Band, Role
from vultus.domain.sightings import Appeared, Recognised, Unknown

pytestmark = NO_CHROMIUM
AXE = "axe-core@4.14.1"
CHECK = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
}"""

MOVING = """() => [...document.querySelectorAll("*")].filter((one) => {
  const { transitionDuration, animationDuration } = getComputedStyle(one);
  return [transitionDuration, animationDuration].join().split(",").some((part) => parseFloat(part) > 0);
}).map((one) => one.outerHTML.slice(0, 80))"""
"""Whatever would move, although less motion is asked for."""

BORDERLESS = """() => {
  const edged = "main :is(button, .button, input, select, textarea, .badge, .notice, section)";
  const bare = ".visually-hidden, [type=checkbox], [type=radio], [type=range], .quiet";
  return [...document.querySelectorAll(edged)].filter((one) => one.checkVisibility() && !one.matches(bare))
    .filter((one) => parseFloat(getComputedStyle(one).borderTopWidth) === 0)
    .map((one) => one.outerHTML.slice(0, 80));
}"""
"""What would have no edge where the system's colours replace every background."""


def group() -> bytes:
    """Return a photo of Ada and of somebody who is not enrolled."""
    return encoded(np.hstack([astronaut(), drawn(STRANGER, side=512)]))


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that looks for what keeps people out."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, which brings axe-core")
    folder = tmp_path_factory.mktemp("axe")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", AXE]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"axe-core cannot be installed: {done.stderr[-200:]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


async def recognise(page: Page, photo: bytes, name: str = "party.jpg") -> Any:
    """Drop a photo, and return the section with what came of it."""
    await page.locator(".dropzone input").set_input_files(as_file(photo, name))
    section = page.locator(".results > section").first
    await expect(section).not_to_have_attribute("aria-busy", "true")
    return section


async def test_who_is_enrolled_is_named_and_nobody_else(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.register(portrait(), collection=gallery, name="Ada")
    page = await visit.open(await site.make_key(Role.MANAGE, gallery), "#/recognise")
    section = await recognise(page, group())
    verdicts = section.locator(".verdicts > li")
    await expect(verdicts).to_have_count(2)
    await visit.show("recognise")

    await expect(verdicts.nth(0)).to_contain_text("Ada")
    await expect(verdicts.nth(1).locator(".headline")).to_have_text("2Nobody who is enrolled")
    await expect(verdicts.nth(1).locator(".candidates .below")).to_contain_text("below the threshold: not named")
    await expect(section.locator(".box .tag")).to_have_text(["1 Ada", "2 "])
    await expect(section.get_by_text("Named from a similarity of")).to_contain_text("1 face enrolled here")
    box, picture = await section.locator(".box").first.bounding_box(), await section.locator("img").bounding_box()
    assert box and picture
    assert 0.1 < (box["x"] - picture["x"]) / picture["width"] < 0.3

    empty = await recognise(page, nobody(), "wall.jpg")
    await expect(empty).to_contain_text("There is no face in this photo")
    broken = await recognise(page, b"no picture", "notes.txt")
    await expect(broken.get_by_role("alert")).to_contain_text("not an image", ignore_case=True)
    await page.locator(".verdicts").get_by_role("link", name="Ada").click()
    await expect(page.get_by_role("heading", name="Ada")).to_be_focused()


async def test_a_key_for_recognition_alone_sees_verdicts_without_scores(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.register(portrait(), collection=gallery, name="Ada")
    page = await visit.open(await site.make_key(Role.RECOGNIZE, gallery), "#/recognise")
    assert await page.locator("nav a").all_inner_texts() == ["Overview", "Recognise"]
    section = await recognise(page, portrait(mirror=True))

    await expect(section.locator(".headline")).to_have_text("1Ada")
    assert await section.locator(".candidates").count() == 0
    assert await section.get_by_role("link").count() == 0


async def test_every_page_is_accessible_in_both_themes_and_fits_a_phone(busy_visit: Visit, axe: str) -> None:
    visit, site = busy_visit, busy_visit.site
    long = "Wolfeschlegelsteinhausenbergerdorff" * 3
    watch = await Lookout.begin(site, long)
    gallery = watch.gallery
    photos = (portrait(), portrait(mirror=True))
    registered = await site.api.register(*photos, collection=gallery, name=long, external_id="E-" + "9" * 120)
    person = registered["person"]["id"]
    track = uuid4()
    await watch.tell(Appeared, track_id=track)
    await watch.tell(Recognised, 1, track_id=track, person_id=UUID(person), band=Band.CLEAR)
    await watch.tell(Unknown, 2, track_id=uuid4())
    address = {"name": long, "url": f"https://example.org/{long}", "collections": [gallery]}
    webhook = (await site.api.client.post("/v1/webhooks", json=address)).json()["id"]
    await visit.page.add_init_script("localStorage.setItem('vultus.language', 'de')")  # whose words are longer
    page = await visit.open(await site.make_key(Role.ADMIN, gallery), "#/overview")
    await page.evaluate(axe)
    found: dict[str, Any] = {}
    more = (f"people/{person}", f"people/{person}/photos", "people/new", f"webhooks/{webhook}")
    for path in (*await visit.list_pages(), *more):
        await visit.go(path)
        if path == "recognise":
            await recognise(page, group())
        if path == "overview":
            await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        if path == "events":
            await expect(page.locator(".walk")).to_have_count(2)
        await visit.show(path.replace(webhook, "one").replace(person, "long").replace("/", "-"))
        for theme in ("light", "dark"):
            await page.emulate_media(color_scheme=theme)
            found[f"{path} {theme}"] = await page.evaluate(CHECK)
        await page.set_viewport_size({"width": 320, "height": 640})
        width = await page.evaluate("document.documentElement.scrollWidth")
        found[f"{path} width"] = [] if width <= 320 else [width]
        await page.set_viewport_size({"width": 1280, "height": 720})
        found[f"{path} moves"] = await page.evaluate(MOVING)
        await page.emulate_media(forced_colors="active")
        found[f"{path} forced colours"] = await page.evaluate(BORDERLESS)
        await visit.show(f"{path.replace(person, 'long').replace('/', '-')}-forced")
        await page.emulate_media(forced_colors="none")

    assert {name: wrong for name, wrong in found.items() if wrong} == {}


async def test_the_overview_tells_what_runs(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.register(portrait(), collection=gallery, name="Ada")
    page = await visit.open(await site.make_key(Role.ADMIN, gallery), "#/overview")

    await expect(page.get_by_text("1 thing needs attention")).to_be_visible()
    await expect(page.locator(".notice.warn")).to_contain_text("The built-in pack confuses some people")
    await expect(page.locator(".numbers li").first).to_contain_text("1")
    await expect(page.get_by_role("region", name="builtin")).to_contain_text("MIT")
    await page.get_by_text("Measured error rates").first.click()
    await expect(page.get_by_role("columnheader", name="Any two strangers")).to_be_visible()


async def test_a_server_that_is_gone_is_explained(visit: Visit, site: Site) -> None:
    page = await visit.open(await site.make_key(Role.MANAGE))
    await page.context.set_offline(True)
    await page.get_by_role("searchbox").fill("x")
    await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    await expect(page.get_by_role("alert")).to_contain_text("try again")


async def test_files_are_checked_again_not_sent_again(site: Site) -> None:
    first = await site.api.client.get("/console-assets/app.js")
    again = await site.api.client.get("/console-assets/app.js", headers={"If-None-Match": first.headers["etag"]})
    page = await site.api.client.get("/console")

    plain = await site.api.client.get("/console-assets/app.js", headers={"Accept-Encoding": "identity"})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert (first.headers["content-encoding"], plain.headers.get("content-encoding")) == ("gzip", None)
    assert first.text == plain.text
    assert first.headers["etag"] != plain.headers["etag"]
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "://" not in page.text + policy
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", page.text)
    assert page.headers["permissions-policy"].startswith("camera=(self)")
    assert (await site.api.client.get("/console-assets/../serving.py")).status_code == 404
