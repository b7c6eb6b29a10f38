"""`python -m tools.pictures`: the pictures of README and documents, of a running `vultus demo` in a real Chromium.

Everybody in them is drawn. The networks are those that the demo finds: `VULTUS_MODELS__DIR` names a folder with others
than the built-in ones.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from tests.browser.conftest import CHROMIUM

from vultus.demo.features import invent_features
from vultus.demo.film import FPS, encode_frame
from vultus.demo.people import CAST, TAKES, encode_photo, photograph
from vultus.demo.portraits import View, draw_portrait
from vultus.demo.surroundings import build_settings
from vultus.demo.tour import STAFF_GALLERY
from vultus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1180, 860
QUALITY, MOVING_QUALITY = 82, 60
WAIT_S = 60
SETTLING_MS = 600
"""For the rest of a page, once what it is about is there."""

CAMERA_FPS = 30
"""At which Chromium plays a file that stands for a camera."""

CAMERA_S = (16.5, 24.5)
"""What of the film it shows: two people who cross the picture together."""

SLOWNESS = 4
"""As many times slower the film is played to the live page: what takes pictures of it keeps the processor busy."""

MOVING_FRAMES, MOVING_STEP_MS, MOVING_WIDTH = 30, 160, 720
EVALUATED = 30
"""Persons of the report, the first that are invented: some look alike."""

HARD_VIEW = View(yaw=0.5, light=(-0.9, 0.0), ambient=0.15, noise=14, seed=3)


@dataclass(frozen=True)
class Demo:
    """A running demo: address of its console, a key, and the folder of its photos."""

    console: str
    key: str
    photos: Path


@contextmanager
def run_demo() -> Iterator[Demo]:
    """Run a demo until the block ends; yield it once its people, camera and calibration are there."""
    command = [sys.executable, "-m", "vultus", "demo", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            text = ""
            while "is calibrated" not in text:
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    raise SystemExit(f"The demo ended:\n{text}")
                text += line
            found = [
                re.search(pattern, text) for pattern in (r"Console +(\S+)", r"Key +(\S+)", r"drop (\S+)/group\.jpg")
            ]
            console, key, photos = (match.group(1) for match in found if match)
            yield Demo(console, key, Path(photos))
        finally:
            process.terminate()
            process.communicate(timeout=WAIT_S)


def open_browser(playwright: Playwright, folder: Path) -> Browser:
    """Start a Chromium whose camera is a part of the demo's film."""
    film = folder / "camera.mjpeg"
    with film.open("wb") as stream:
        for number in range(*(round(at * CAMERA_FPS * SLOWNESS) for at in CAMERA_S)):
            stream.write(encode_frame(number * FPS // (CAMERA_FPS * SLOWNESS)))
    flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--no-sandbox"]
    return playwright.chromium.launch(
        executable_path=CHROMIUM, args=[*flags, f"--use-file-for-fake-video-capture={film}"]
    )


@contextmanager
def sign_in(browser: Browser, demo: Demo, theme: str, path: str, collection: str = "default") -> Iterator[Page]:
    """Yield a page of the console in a theme."""
    context = browser.new_context(
        color_scheme=theme,  # type: ignore[arg-type]
        locale="en-GB",
        permissions=["camera"],
        reduced_motion="reduce",
        viewport={"width": WIDTH, "height": HEIGHT},
    )
    context.set_default_timeout(WAIT_S * 1000)
    page = context.new_page()
    page.goto(demo.console + path)
    page.evaluate("(name) => sessionStorage.setItem('vultus.collection', name)", collection)
    page.fill("#key", demo.key)
    page.keyboard.press("Enter")
    page.wait_for_selector("nav")
    yield page
    context.close()


def save(picture: bytes, path: Path) -> None:
    """Write a picture that a browser took."""
    Image.open(io.BytesIO(picture)).convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)


@dataclass(frozen=True)
class Subject:
    """A page to take.

    Attributes:
        path: In the console.
        shows: Selector of what is on it once it is there.
        button: To press first.
        photo: To drop first, a file of the demo.
        collection: To choose.
        themes: In which it is taken.
        height: Of the picture, pixels.
    """

    path: str
    shows: str
    button: str | None = None
    photo: str | None = None
    collection: str = "default"
    themes: tuple[str, ...] = ("light",)
    height: int = HEIGHT


SUBJECTS = {
    "recognise": Subject(
        "#/recognise", f".verdicts >> text={CAST[0].name}", photo="group.jpg", themes=("light", "dark")
    ),
    "overview": Subject("#/overview", f"main >> text={len(CAST)}", themes=("dark",)),
    "people": Subject("#/people", f"main >> text={CAST[0].name}"),
    "calibration": Subject("#/calibration", "figure >> nth=1", button="Measure", collection=STAFF_GALLERY, height=1240),
    "events": Subject("#/events", f".events >> text={CAST[0].name}"),
}


def take_pages(browser: Browser, demo: Demo, folder: Path, themes: int | None) -> None:
    """Take a picture of each page, in its first themes."""
    for name, subject in SUBJECTS.items():
        for theme in subject.themes[:themes]:
            with sign_in(browser, demo, theme, subject.path, subject.collection) as page:
                page.set_viewport_size({"width": WIDTH, "height": subject.height})
                expect(page.locator('nav a[aria-current="page"]')).to_have_attribute("href", subject.path)
                if subject.photo:
                    page.locator(".dropzone input").set_input_files(demo.photos / subject.photo)
                if subject.button:
                    page.get_by_role("button", name=subject.button).first.click()
                page.locator(subject.shows).first.wait_for()
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(SETTLING_MS)
                save(page.screenshot(), folder / f"{name}-{theme}.webp")


def take_live(browser: Browser, demo: Demo, folder: Path, frames: int) -> None:
    """Take the live page as an animation, from the first name on."""
    with sign_in(browser, demo, "light", "#/live") as page:
        page.get_by_role("button", name="Start the camera").click()
        page.wait_for_function("() => document.querySelector('vultus-live').dataset.names.replaceAll('|', '')")
        clip = page.locator(".live").bounding_box()
        stage = page.locator(".stage").bounding_box()
        assert clip and stage
        clip["height"] = stage["height"]
        taken = []
        for _ in range(frames):
            due = time.monotonic() + MOVING_STEP_MS * SLOWNESS / 1000
            picture = Image.open(io.BytesIO(page.screenshot(clip=clip)))
            taken.append(picture.convert("RGB"))
            page.wait_for_timeout(max(0.0, due - time.monotonic()) * 1000)
    size = (MOVING_WIDTH, round(taken[0].height * MOVING_WIDTH / taken[0].width))
    first, *rest = (picture.resize(size, Image.Resampling.LANCZOS) for picture in taken)
    first.save(
        folder / "live.webp",
        save_all=True,
        append_images=rest,
        duration=MOVING_STEP_MS,
        loop=0,
        quality=MOVING_QUALITY,
        method=6,
    )


def take_report(browser: Browser, folder: Path, scratch: Path, persons: int) -> None:
    """Take the report of an evaluation on drawn people, each with one photo that is hard."""
    for face in range(persons):
        person = scratch / "drawn people" / str(face)
        person.mkdir(parents=True)
        for take in range(len(TAKES)):
            (person / f"{take}.jpg").write_bytes(photograph(face, take))
        (person / "hard.jpg").write_bytes(encode_photo(draw_portrait(invent_features(face), HARD_VIEW)))
    pack = build_settings(Settings(), scratch, 0).inference.pack or ""
    evaluate = [sys.executable, "-m", "vultus", "evaluate", "pairs", str(person.parent), "--pack", pack]
    subprocess.run([*evaluate, "--out", str(scratch / "report")], check=True, stdout=subprocess.DEVNULL)
    page = browser.new_page(viewport={"width": WIDTH, "height": 1020}, color_scheme="light")
    page.goto((scratch / "report" / "report.html").as_uri())
    save(page.screenshot(), folder / "report.webp")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder; docs/pictures unless given")
    parser.add_argument(
        "--quick", action="store_true", help="one theme each, few frames, four persons: to see whether it works"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        if "VULTUS_DATA_DIR" not in os.environ:
            os.environ["VULTUS_DATA_DIR"] = scratch + "/installed"
        browser = open_browser(playwright, Path(scratch))
        with run_demo() as demo:
            take_pages(browser, demo, options.out, 1 if options.quick else None)
            take_live(browser, demo, options.out, 3 if options.quick else MOVING_FRAMES)
        take_report(browser, options.out, Path(scratch), 4 if options.quick else EVALUATED)
        browser.close()
    for path in sorted(options.out.glob("*.webp")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
