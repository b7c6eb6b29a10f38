"""The test page in a real browser whose camera is a file made here: the name appears over the face."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import Page, async_playwright, expect
from sqlalchemy import text
from tests.api.conftest import Api, api, others, pipeline, serve  # noqa: F401  fixtures
from tests.faces import astronaut, encoded, portrait
from tests.live_sessions import LiveServer, serving_live

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 20
HOSTILE_NAME = "<img src=//evil.test/x onerror=alert(1)>"
MARKUP = r"""
<script>alert(1)</script>
</canvas><script>alert(1)</script>
"><svg/onload=alert(1)>
' onclick=alert(1) '
<iframe srcdoc='<script>alert(1)</script>'>
<a href=javascript:alert(1)>Ada</a>
<style>*{display:none}</style>
<link rel=stylesheet href=//evil.test>
<base href=//evil.test>
<meta http-equiv=refresh content=0>
<!--
]]>
&lt;script&gt;alert(1)
&#60;script&#62;
\u003cscript\u003e
%3Cscript%3E
javascript:alert(1)
{{7*7}}
${alert(1)}
<%= 7*7 %>
#{7*7}
{% debug %}
{0.__class__}
%s%n%x
$(id)
`id`
$&
__proto__
constructor
null
undefined
NaN
0
[object Object]
"}],"type":"bye"
'; DROP TABLE persons; --
=HYPERLINK("http://evil.test")
@SUM(1)
../../etc/passwd
C:\aux
a|b
"""
HOSTILE_NAMES = [
    *MARKUP.strip().split("\n"),
    *("محمد", "עדה", "Ada محمد <b>", "\u202emoc.live", "\u2066Ada\u2069", "\u200eAda", "Z" + "\u0301" * 150),
    *("W" * 200, "ﷺ" * 200, "💣" * 200, "👩\u200d👧" * 20, "🇩🇪" * 50, "\ufeffAda", "Ada\u200b", "\u00ad", "\ue000"),
    *("\x1b[31mAda", "\x07", "Ada\r\nX: y", "Ada\tBob", "Ada\u2028Bob", "\x7f", "\x85", "\uffff", "\ufffd", " Ada "),
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")


@pytest.fixture
async def live(api: Api) -> AsyncIterator[LiveServer]:  # noqa: F811
    async with serving_live(api) as server:
        yield server


def write_video(path: Path) -> Path:
    """Write the astronaut, moving a little, as the motion JPEG that Chromium takes for a camera."""
    picture = Image.fromarray(astronaut())
    parts = [picture.resize((640, 480), box=(at, at, at + 480, at + 360)) for at in (0, 4, 8, 12, 8, 4)]
    path.write_bytes(b"".join(map(encoded, parts)))
    return path


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    video = write_video(tmp_path / "camera.mjpeg")
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--no-sandbox"]
    flags.append(f"--use-file-for-fake-video-capture={video}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = await browser.new_context()
        await context.grant_permissions(["camera"])
        yield await context.new_page()
        await browser.close()


async def test_the_page_shows_names_over_faces_and_keeps_the_key_to_itself(live: LiveServer, page: Page) -> None:
    await live.api.register(portrait(), portrait(mirror=True), name=HOSTILE_NAME)
    key = live.api.client.headers["Authorization"].removeprefix("Bearer ")
    troubles: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))

    await page.goto(f"http://127.0.0.1:{live.port}/live")
    await page.fill("#key", key)
    await page.click("#start")
    await expect(page.locator("body")).to_have_attribute("data-names", HOSTILE_NAME, timeout=SECONDS * 1000)
    await page.wait_for_timeout(1500)
    if folder := os.environ.get("VULTUS_TEST_SCREENSHOTS"):
        await page.screenshot(path=f"{folder}/live.png")
    figures = await page.inner_text("#figures")
    stored = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")

    assert "frames a second" in figures
    assert key not in stored + await page.content() + "".join(asked)
    assert await page.input_value("#key") == ""
    assert all(url.startswith((f"http://127.0.0.1:{live.port}/", "blob:")) for url in asked)
    assert troubles == []

    await page.click("#stop")
    await expect(page.locator("#status")).to_have_text("Stopped.")
    assert not await page.evaluate("document.body.dataset.names")
    assert await page.evaluate("pen.getImageData(0, 0, overlay.width, overlay.height).data.every((one) => !one)")
    await page.wait_for_timeout(300)
    assert not live.sessions._sessions


async def test_names_do_nothing_but_stand_over_faces(
    live: LiveServer, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the service refuses too, as if they had come into the database in another way."""
    monkeypatch.setattr("vultus.services.live.gallery.CHECK_INTERVAL_S", 0.0)
    person = (await live.api.register(portrait(), portrait(mirror=True), name="Ada"))["person"]["id"]
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("request", lambda request: None if live_at(request.url) else troubles.append(request.url))

    def live_at(url: str) -> bool:
        return url.startswith((f"http://127.0.0.1:{live.port}/", "blob:"))

    await page.goto(f"http://127.0.0.1:{live.port}/live")
    await page.fill("#key", live.api.client.headers["Authorization"].removeprefix("Bearer "))
    await page.click("#start")
    await expect(page.locator("body")).to_have_attribute("data-names", "Ada", timeout=SECONDS * 1000)
    elements = await page.evaluate("document.querySelectorAll('*').length")
    refused = 0
    for name in HOSTILE_NAMES:
        answer = await live.api.client.patch(f"/v1/collections/default/persons/{person}", json={"name": name})
        refused += answer.status_code != 200
        async with live.api.services.database.transaction() as work:
            await work._session.execute(text("UPDATE persons SET name = :name"), {"name": name})
        await page.wait_for_function("name => document.body.dataset.names === name", arg=name, timeout=SECONDS * 1000)

    assert 5 < refused < len(HOSTILE_NAMES) / 2
    assert await page.evaluate("document.querySelectorAll('*').length") == elements
    assert await page.inner_text("#status") == "Connected."
    assert troubles == []


async def test_the_page_sends_no_more_frames_than_it_may(serve: Callable[..., Any], page: Page) -> None:  # noqa: F811
    """On a display of 143 Hz, and faster than a session may send; then the server stops."""
    await page.add_init_script("requestAnimationFrame = (step) => setTimeout(() => step(performance.now()), 7)")
    async with serving_live(await serve(live={"max_frames_per_second": 5})) as live:
        await live.api.register(portrait(), portrait(mirror=True), name="Ada")
        await page.goto(f"http://127.0.0.1:{live.port}/live")
        await page.fill("#key", live.api.client.headers["Authorization"].removeprefix("Bearer "))
        await page.click("#start")
        await expect(page.locator("body")).to_have_attribute("data-names", "Ada", timeout=SECONDS * 1000)
        seen = [await page.evaluate("[performance.now() / 1000, session.sequence]")]
        for _ in range(4):
            await page.wait_for_timeout(2000)
            seen.append(await page.evaluate("[performance.now() / 1000, session.sequence]"))

        assert all(0 < after[1] - before[1] <= 5 * (after[0] - before[0]) + 2 for before, after in pairwise(seen)), seen
        assert await page.evaluate("session.dropped") <= 5
        assert await page.inner_text("#status") == "Connected."

        live.server.handle_exit(signal.SIGTERM, None)
        await expect(page.locator("#status")).to_contain_text("The server stops")
        await expect(page.locator("body")).not_to_have_attribute("data-names", "Ada")


async def test_the_page_shows_nobody_once_no_answer_comes(live: LiveServer, page: Page) -> None:
    await live.api.register(portrait(), portrait(mirror=True), name="Ada")
    await page.goto(f"http://127.0.0.1:{live.port}/live")
    await page.fill("#key", live.api.client.headers["Authorization"].removeprefix("Bearer "))
    await page.click("#start")
    body = page.locator("body")
    await expect(body).to_have_attribute("data-names", "Ada", timeout=SECONDS * 1000)

    await page.evaluate("session.socket.onmessage = null")
    await expect(body).not_to_have_attribute("data-names", "Ada")
    sent = await page.evaluate("session.sequence")
    await page.wait_for_timeout(2500)

    assert await page.evaluate("session.sequence") > sent


async def test_the_page_says_what_is_wrong(live: LiveServer, page: Page) -> None:
    await page.goto(f"http://127.0.0.1:{live.port}/live")
    await page.fill("#key", "vultus_" + "x" * 43)
    await page.click("#start")

    await expect(page.locator("#status")).to_contain_text("unknown, revoked")
    await expect(page.locator("#start")).to_be_enabled()
