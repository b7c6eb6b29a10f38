"""One server and one Chromium for all tests, whose camera is a film of the astronaut; pages that tell troubles."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from PIL import Image
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from sse_starlette.sse import AppStatus
from tests.api.conftest import Api, close_api, pipeline, start_api  # noqa: F401  a fixture
from tests.callers import CALLER
from tests.conftest import TEMPLATE, as_role
from tests.faces import astronaut, encoded
from tests.live_sessions import LiveServer, serving_live

from vultus.db.database import Database
from vultus.db.embedded.cluster import OWNER, SERVICE
from vultus.domain import Permission, Role
from vultus.models.pipeline import FacePipeline
from vultus.models.pipelines import PipelineRegistry
from vultus.settings import DatabaseSettings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
"""The first is the same browser without a desktop's parts: a page of its own takes a quarter of the time."""
NO_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium-headless-shell)"
)
SECONDS = 20
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""
LIST_PAGES = """async () => {
  const { listPages } = await import(new URL("console-assets/pages/routes.js", document.baseURI));
  return listPages().map((page) => page.path);
}"""
_numbers = count(1)

expect.set_options(timeout=SECONDS * 1000)


@dataclass
class Site:
    """A running server, and what its tests make of it."""

    live: LiveServer
    begin: Callable[[int], Awaitable[LiveServer]]
    running: AsyncExitStack

    @property
    def api(self) -> Api:
        return self.live.api

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.live.port}"

    async def stop(self) -> None:
        """Stop the server; its database stays."""
        await self.running.aclose()

    async def start(self) -> None:
        """Start it again, at the same address."""
        self.live = await self.begin(self.live.port)

    async def make_gallery(self) -> str:
        """Create a collection of the test's own; return its name."""
        name = f"gallery-{next(_numbers)}"
        answer = await self.api.client.post("/v1/collections", json={"name": name})
        assert answer.status_code == 201, answer.text
        return name

    async def make_key(self, permissions: Role | set[Permission], *collections: str) -> str:
        """Create a key, bound to collections if there are any; return its secret."""
        bound = list(collections) or None
        _, secret = await self.api.services.access.create_key(CALLER, "browser", permissions, collections=bound)
        return secret


@dataclass
class Visit:
    """A page, and everything that went wrong in it."""

    page: Page
    site: Site
    troubles: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to what goes wrong, and to what is asked for."""
        page = self.page
        page.on("console", lambda message: self._note_message(message.type, message.text))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        page.on("request", lambda request: self.asked.append(request.url))

    def _note_message(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:
            self.troubles.append(text)

    async def open(self, key: str, path: str = "#/people") -> Page:
        """Sign in, and go to a page."""
        await self.page.goto(f"{self.site.address}/console{path}")
        await self.page.fill("#key", key)
        await self.page.keyboard.press("Enter")
        await self.page.wait_for_selector("nav")
        return self.page

    async def show(self, name: str) -> None:
        """Keep a picture of the page, in both themes and on a phone, where somebody asked for it."""
        if folder := os.environ.get("VULTUS_TEST_SCREENSHOTS"):
            size = self.page.viewport_size
            for theme, width in (("light", 1280), ("dark", 1280), ("light", 320), ("dark", 320)):
                await self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                await self.page.set_viewport_size({"width": width, "height": 900 if width > 400 else 700})
                await self.page.wait_for_timeout(250)
                await self.page.screenshot(path=Path(folder) / f"{name}-{theme}-{width}.png", full_page=width < 400)
            await self.page.emulate_media(color_scheme="no-preference")
            await self.page.set_viewport_size(size or {"width": 1280, "height": 720})

    async def go(self, path: str) -> None:
        """Go to another page, and wait until what it asked for is there."""
        await self.page.evaluate("(path) => { location.hash = `#/${path}`; }", path)
        await expect(self.page.locator("main h1")).to_be_visible()
        await expect(self.page.locator("main [aria-busy=true]")).to_have_count(0)

    async def list_pages(self) -> list[str]:
        """Return the pages that the key is offered."""
        pages: list[str] = await self.page.evaluate(LIST_PAGES)
        return pages

    def check(self) -> None:
        """Fail if anything went wrong, or anything was asked of another origin."""
        assert self.troubles == []
        assert [url for url in self.asked if not url.startswith((f"{self.site.address}/", "blob:"))] == []


def write_film(path: Path) -> Path:
    """Write the astronaut, moving a little, as the motion JPEG that Chromium takes for a camera."""
    picture = Image.fromarray(astronaut())
    parts = [picture.resize((640, 480), box=(at, at, at + 480, at + 360)) for at in (0, 4, 8, 12, 8, 4)]
    path.write_bytes(b"".join(map(encoded, parts)))
    return path


def list_flags(film: Path) -> list[str]:
    """Return the command line of a Chromium whose camera shows a film."""
    flags = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    return [*flags, f"--use-file-for-fake-video-capture={film}"]


@pytest.fixture(scope="session")
async def serve_site(
    server_url: str,
    admin: asyncpg.Connection,
    pipeline: FacePipeline,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Any]:
    """Return a context manager that serves everything on a socket, with a database and settings of its own."""

    @asynccontextmanager
    async def serve(*others: FacePipeline, **settings: Any) -> AsyncIterator[Site]:
        name = f"browser_{os.getpid()}_{next(_numbers)}"
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}")
        serving, owner = (as_role(server_url, role).replace("/vultus?", f"/{name}?") for role in (SERVICE, OWNER))
        database = await Database.connect(serving, DatabaseSettings(pool_size=5), owner_url=owner)
        data = tmp_path_factory.mktemp("data")

        async def begin(port: int) -> LiveServer:
            api = await start_api(database, PipelineRegistry(pipeline, *others), data, **settings)
            running.push_async_callback(close_api, api)
            return await running.enter_async_context(serving_live(api, port))

        async with AsyncExitStack() as running:
            yield Site(await begin(0), begin, running)
        await database.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    return serve


@pytest.fixture(scope="session")
async def site(serve_site: Callable[..., Any]) -> AsyncIterator[Site]:
    """The server of every test that needs no other: what a test makes belongs to a collection of its own."""
    async with serve_site() as site:
        yield site


@pytest.fixture(scope="session")
async def busy_site(serve_site: Callable[..., Any]) -> AsyncIterator[Site]:
    """A server that follows events, watches sources and delivers to webhooks; on this machine, too."""
    sources = {"allowed": "127.0.0.1", "read_timeout_s": 3, "fps": 10, "idle_fps": 10}
    webhooks = {"allowed_networks": ("127.0.0.1",), "first_retry_s": 0.05}
    async with serve_site(sources=sources, webhooks=webhooks) as site, AsyncExitStack() as stack:
        services = site.api.services
        stack.push_async_callback(services.source_supervisor.close)
        stack.push_async_callback(services.webhook_dispatcher.close)
        jobs = {
            "follow": (services.event_follower.follow, None),
            "deliver": (services.webhook_dispatcher.dispatch, None),
            "watch": (services.source_supervisor.run, 0.2),
        }
        for name, (run, interval_s) in jobs.items():
            await stack.enter_async_context(services.jobs.run(name, run, interval_s=interval_s))
        yield site


@pytest.fixture(scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    flags = list_flags(write_film(tmp_path_factory.mktemp("camera") / "camera.mjpeg"))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        await browser.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(locale="en-GB", permissions=["camera"], reduced_motion="reduce")
    context.set_default_timeout(SECONDS * 1000)
    await context.add_init_script(REPORT_VIOLATIONS)
    yield context
    await context.close()


@pytest.fixture
async def visit(context: BrowserContext, site: Site) -> AsyncIterator[Visit]:
    """A page that must have had no troubles in the end."""
    visit = Visit(await context.new_page(), site)
    yield visit
    visit.check()


@pytest.fixture
async def busy_visit(context: BrowserContext, busy_site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Visit]:
    """The same, of a server that works; another server that was stopped in this process ends no stream of it."""
    monkeypatch.setattr(AppStatus, "should_exit", False)
    visit = Visit(await context.new_page(), busy_site)
    yield visit
    visit.check()
