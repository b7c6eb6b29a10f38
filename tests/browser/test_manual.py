"""The manual: built from docs/, served behind a path of a proxy, and read in a browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from hatch_build import MARK, ROOT, ROOT_PAGES, build_manual
from hatchling.builders.wheel import WheelBuilder
from playwright.async_api import BrowserContext, Page, expect
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from tests.browser.conftest import NO_CHROMIUM
from tests.browser.test_console_pages import CHECK, axe  # noqa: F401  a fixture
from tests.live_sessions import LIMITS
from tests.server.sockets import running

from vultus.api.middleware import RequestContextMiddleware
from vultus.console.manual import add_manual

PREFIX = "/behind/a/proxy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="the builder of the manual is not installed (make test installs it)")
    pytest.importorskip("mmdr", reason="the builder of the manual is not installed (make test installs it)")
    built = tmp_path_factory.mktemp("manual") / "site"
    build_manual(built)
    return built


@pytest.fixture(scope="module")
async def address(folder: Path) -> AsyncIterator[str]:
    app = Starlette(middleware=[Middleware(RequestContextMiddleware, limits=LIMITS)])  # which adds headers
    add_manual(app, folder)
    async with running(Starlette(routes=[Mount(PREFIX, app)])) as server:
        yield f"http://127.0.0.1:{server.port}{PREFIX}"


@pytest.fixture
async def page(context: BrowserContext, address: str) -> AsyncIterator[Page]:
    """A page in which nothing may go wrong, and which may ask nobody else."""
    page, troubles, asked = await context.new_page(), [], []
    page.on("console", lambda message: troubles.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    assert troubles == []
    assert [url for url in asked if not url.startswith((f"{address}/manual", "data:", "blob:"))] == []


def find_links(page: Path) -> list[str]:
    return [unquote(link) for link in re.findall(r'\b(?:href|src|srcset)="([^"]+)"', page.read_text())]


def test_every_address_in_the_manual_is_one_of_its_own_or_of_another_site(folder: Path) -> None:
    pages = {path: path.read_text() for path in folder.rglob("*.html")}
    broken = []
    for page in pages:
        for link in find_links(page):
            name, _, anchor = link.partition("#")
            target = Path(os.path.normpath(page.parent / name)) if name else page
            whole = name.startswith(("https://", "data:")) or (target.is_relative_to(folder) and target.exists())
            if not whole or (anchor and target in pages and f'id="{anchor}"' not in pages[target]):
                broken.append(f"{page.relative_to(folder)}: {link}")

    assert len(pages) > 40
    assert broken == []


@pytest.mark.parametrize("link", ["[gone](gone.md)", "[gone](privacy.md#gone)", "[gone](../GONE.md)"])
def test_a_broken_link_fails_the_build(folder: Path, tmp_path: Path, link: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / MARK).parent.mkdir(parents=True)
    for name in (MARK, *ROOT_PAGES):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    with (tmp_path / "docs/officers.md").open("a") as page:
        page.write(f"\n{link}\n")

    with pytest.raises(SystemExit, match="not built"):
        build_manual(tmp_path / "site", tmp_path)


def test_the_same_pages_make_the_same_site(folder: Path, tmp_path: Path) -> None:
    build_manual(tmp_path / "site")

    def read(site: Path) -> dict[str, bytes]:
        return {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}

    assert read(tmp_path / "site") == read(folder)


def test_the_wheel_contains_the_manual() -> None:
    site = ROOT / "src/vultus/console/site"
    if not site.exists():
        pytest.skip("the manual is not built (make manual)")

    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}

    assert {f"vultus/console/site/{path.relative_to(site)}" for path in site.rglob("*") if path.is_file()} <= packed


async def test_files_have_types_and_tags_and_pages_a_strict_policy(address: str) -> None:
    async with httpx.AsyncClient() as client:
        moved = await client.get(f"{address}/manual")
        page = await client.get(f"{address}/manual/")
        again = await client.get(f"{address}/manual/", headers={"If-None-Match": page.headers["etag"]})
        index = await client.get(f"{address}/manual/search.json")
        outside = [
            await client.get(f"{address}/manual/{name}") for name in ("..%2fmanual.py", "nothing.html", "assets")
        ]

    assert (moved.status_code, moved.headers["location"]) == (307, "manual/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (again.status_code, again.content) == (304, b"")
    assert index.headers["content-type"] == "application/json"
    assert [answer.status_code for answer in outside] == [404, 404, 404]
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "unsafe" not in policy
    assert "://" not in policy


async def test_without_a_built_manual_the_page_says_how_to_build_it(tmp_path: Path) -> None:
    app = Starlette()
    add_manual(app, tmp_path / "nothing")
    async with running(app) as server, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/manual")

    assert answer.status_code == 404
    assert "make manual" in answer.text


@NO_CHROMIUM
async def test_search_finds_a_page_and_nothing_is_asked_of_another_origin(page: Page, address: str) -> None:
    await page.goto(f"{address}/manual")
    await expect(page).to_have_url(f"{address}/manual/")
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("combobox", name="Search").fill("tombstone")
    await page.get_by_role("option", name="trigger numbers what was erased").click()
    await expect(page).to_have_url(re.compile("/decisions/0010"))
    await expect(page.locator("h1")).to_contain_text("trigger numbers")


@NO_CHROMIUM
async def test_nothing_serious_keeps_anybody_out(page: Page, address: str, axe: str) -> None:  # noqa: F811
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        for name in ("index", "api", "integrate/python", "troubleshooting", "results/accuracy"):
            await page.goto(f"{address}/manual/{name}.html")
            await page.evaluate(axe)
            assert await page.evaluate(CHECK) == [], f"{name}, {theme}"


@NO_CHROMIUM
async def test_pages_fit_a_phone_in_both_themes(page: Page, address: str) -> None:
    await page.set_viewport_size({"width": 320, "height": 700})
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        for name in ("index", "start", "api", "architecture", "accuracy", "decisions/index"):
            await page.goto(f"{address}/manual/{name}.html")
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320, name
            scheme = await page.evaluate("document.body.getAttribute('data-md-color-scheme')")
            assert scheme == {"light": "default", "dark": "slate"}[theme]
