"""How soon can the console be used on a cold cache, and what does its live page cost the browser?

The real server in a process of its own, and Chromium, headless. A first page is usable when the field for the key has
the focus; each is loaded by a browser without a cache. On the live page one enrolled person moves before a camera that
is a film; its cost is the processor time of its renderer, encoding of frames included.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from playwright.async_api import async_playwright
from tests.browser.conftest import CHROMIUM, list_flags, write_film
from tests.faces import portrait

from benchmarks import record
from benchmarks.record import Measurement, compute_percentiles, format_milliseconds, render_table
from benchmarks.server import run_server
from benchmarks.serving import CONSENT

if TYPE_CHECKING:
    from playwright.async_api import Browser, CDPSession, Page

    from benchmarks.server import Server

SECONDS = 20.0
LOADS = 20
LOAD_BAR_MS, LIVE_BAR = 1000.0, 0.25
COUNT_DRAWS = """(page) => {
  const draw = page.draw, receive = page.session.receive;
  page.drawn = page.answered = 0;
  page.draw = (...all) => { page.drawn += 1; draw.apply(page, all); };
  page.session.receive = (message) => {
    page.answered += "tracks" in message;
    receive.call(page.session, message);
  };
}"""


def measure(seconds: float) -> list[Measurement]:
    """Return one line of the first page, and one of the live page."""
    with run_server() as server:
        return asyncio.run(_measure_pages(server, seconds))


async def _measure_pages(server: Server, seconds: float) -> list[Measurement]:
    address = f"http://127.0.0.1:{server.port}"
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        files = [("photo", (f"{at}.jpg", portrait(mirror=bool(at)), "image/jpeg")) for at in range(2)]
        registered = await client.post("/v1/register", data=CONSENT | {"name": "Ada"}, files=files)
        registered.raise_for_status()
    with tempfile.TemporaryDirectory() as folder:
        film = write_film(Path(folder) / "camera.mjpeg")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list_flags(film))
            took = [await _time_first_page(browser, address) for _ in range(LOADS)]
            live = await _watch_live_page(browser, address, server.key, seconds)
            await browser.close()
    return [{"what": "first page", "seconds": seconds, **compute_percentiles(took)}, live | {"seconds": seconds}]


async def _time_first_page(browser: Browser, address: str) -> float:
    context = await browser.new_context()
    page = await context.new_page()
    started = time.perf_counter()
    await page.goto(f"{address}/console", wait_until="commit")
    await page.wait_for_selector("#key:focus")
    took = 1000 * (time.perf_counter() - started)
    await context.close()
    return took


async def _watch_live_page(browser: Browser, address: str, key: str, seconds: float) -> Measurement:
    context = await browser.new_context(permissions=["camera"])
    page = await context.new_page()
    others = {one.pid for one in _list_renderers()}
    await page.goto(f"{address}/console#/live")
    await page.fill("#key", key)
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Start the camera").click()
    await page.wait_for_selector("vultus-live[data-names=Ada]")
    await page.locator("vultus-live").evaluate(COUNT_DRAWS)
    devtools = await context.new_cdp_session(page)
    await devtools.send("Performance.enable")
    before = await _read_costs(page, devtools, others)
    await asyncio.sleep(seconds)
    after = await _read_costs(page, devtools, others)
    await context.close()
    cost = {name: after[name] - before[name] for name in after}
    return {
        "what": "live page",
        "core": round(cost["renderer"] / cost["at"], 3),
        "main_thread": round(cost["main_thread"] / cost["at"], 3),
        "answers": round(cost["answered"] / cost["at"], 2),
        "draws": round(cost["drawn"] / cost["at"], 2),
    }


def _list_renderers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [one for one in children if "--type=renderer" in one.cmdline()]


async def _read_costs(page: Page, devtools: CDPSession, others: set[int]) -> dict[str, float]:
    """Return what the live page did and cost so far: seconds, answers, draws."""
    metrics: list[Any] = (await devtools.send("Performance.getMetrics"))["metrics"]
    counted = await page.locator("vultus-live").evaluate("({drawn, answered}) => ({drawn, answered})")
    used = [sum(one.cpu_times()[:2]) for one in _list_renderers() if one.pid not in others]
    busy = next(one["value"] for one in metrics if one["name"] == "TaskDuration")
    return {"at": time.perf_counter(), "renderer": max(used), "main_thread": busy, **counted}


def render(lines: list[Measurement]) -> str:
    """Return both tables."""
    first, live = lines
    row = [first["n"], *(format_milliseconds(first[f"p{at}_ms"]) for at in (50, 95, 99))]
    pages = render_table(("loads", "p50", "p95", "p99"), [row])
    columns = ("seconds", "answers a second", "draws a second", "of a core", "main thread")
    watched = [
        f"{live['seconds']:g}",
        live["answers"],
        live["draws"],
        f"{live['core']:.0%}",
        f"{live['main_thread']:.0%}",
    ]
    reached = "Reached" if first["p95_ms"] <= LOAD_BAR_MS and live["core"] <= LIVE_BAR else "Not reached"
    return (
        f"**The first page, nothing in the cache**, milliseconds until the key can be typed.\n\n{pages}\n\n"
        f"**The live page** with one person in view.\n\n{render_table(columns, [watched])}\n\n"
        f"Bars: at most {LOAD_BAR_MS:g} ms at p95, at most {LIVE_BAR:.0%} of a core. {reached}."
    )


def main() -> None:
    """Run the benchmark of the command line."""
    options = record.build_argument_parser("console", __doc__).parse_args()
    measured = None if options.show else lambda: measure(SECONDS)
    record.run_benchmark("console", measured, render, lambda lines: bool(lines[0]["seconds"] >= SECONDS))


if __name__ == "__main__":
    main()
