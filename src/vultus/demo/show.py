"""The demo itself: a server, people who are registered, a camera that is watched, and a tour."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vultus.demo.client import ApiClient
from vultus.demo.neighbours import CAMERA_PATH, HOOK_PATH, run_neighbours
from vultus.demo.people import CAST, NEWCOMER, STAFF, TAKES, draw_group, photograph
from vultus.demo.surroundings import build_settings, write_settings_file
from vultus.demo.tour import STAFF_GALLERY, Stage, describe_calibration, describe_event, describe_tour
from vultus.errors import UnavailableError
from vultus.main import serve_api
from vultus.server.serving import STOP_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.demo.people import Character
    from vultus.settings import Settings

GALLERY = "default"
PURPOSE, RECORDED_BY = "To be shown in the demo", "vultus demo"
COOLDOWN_S = 15
"""Somebody who comes again is told again after so long: the film is short."""

EVENTS = ["recognised", "unknown", "source_lost"]


async def run_demo(
    installed: Settings, say: Callable[[str], None], *, port: int | None, seconds: float | None, opens_browser: bool
) -> None:
    """Run the demo until it is stopped, and remove whatever it made.

    Args:
        installed: Settings of the installation.
        say: Prints a text.
        port: Of the server; None for the usual one or, where that is taken, any other.
        seconds: How long it runs once the tour is printed; None for until it is stopped.
        opens_browser: Whether to open the console, where there is a desktop.
    """
    with TemporaryDirectory(prefix="vultus-demo-") as folder:
        settings = build_settings(installed, Path(folder), port)
        write_settings_file(settings)
        demo = _Demo(settings, say, seconds=seconds, opens_browser=opens_browser)
        say("Starting a server with a database of its own, and drawing people. This takes some seconds.")
        try:
            async with asyncio.TaskGroup() as tasks:
                showing = tasks.create_task(demo.show())
                try:
                    await serve_api(settings, demo.take_address, demo.take_key)
                finally:
                    showing.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
    say("The demo is over, and everything that it made is gone.")


class _Demo:
    """What happens once the server answers."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], *, seconds: float | None, opens_browser: bool
    ) -> None:
        self._settings, self._say = settings, say
        self._seconds, self._opens_browser = seconds, opens_browser
        self._key = self._address = ""
        self._answers = asyncio.Event()

    def take_key(self, secret: str) -> None:
        """Take the administrator's key."""
        self._key = secret

    def take_address(self, address: str) -> None:
        """Take the server's address, now that it answers."""
        self._address = address
        self._answers.set()

    async def show(self) -> None:
        """Show everything, once the server answers."""
        await self._answers.wait()
        try:
            await self._play()
        except (ConnectionError, UnavailableError):
            await asyncio.sleep(STOP_TIMEOUT_S)  # from a server that is stopped they are no news: it ends this
            raise

    async def _play(self) -> None:
        """Register people, open the camera, print the tour, and go on while it is followed."""
        client = ApiClient(self._address, self._key)
        with ExitStack() as stack:
            neighbours = stack.enter_context(run_neighbours(lambda event: self._say(describe_event(event))))
            photos = await asyncio.to_thread(_write_photos, self._settings.data_dir / "photos")
            policy = {"policy": {"tracks": {"cooldown_s": COOLDOWN_S}}}
            await asyncio.to_thread(client.send_json, "PATCH", f"/v1/collections/{GALLERY}", policy)
            for character in CAST:
                await asyncio.to_thread(_register, client, GALLERY, character, len(TAKES))
            stage = Stage(self._address, self._key, neighbours.address + CAMERA_PATH, photos, self._settings)
            self._say(describe_tour(stage))
            if self._seconds is not None:
                asyncio.get_running_loop().call_later(self._seconds, os.kill, os.getpid(), signal.SIGTERM)
            if self._opens_browser and _has_desktop():
                await asyncio.to_thread(webbrowser.open, stage.console)
            hook = {"name": "the demo's terminal", "url": neighbours.address + HOOK_PATH, "types": EVENTS}
            webhook = await asyncio.to_thread(client.send_json, "POST", "/v1/webhooks", hook | {"with_names": True})
            neighbours.secret = webhook["secret"]
            source = {"name": "corridor", "collection": GALLERY, "address": stage.camera}
            await asyncio.to_thread(client.send_json, "POST", "/v1/sources", source)
            await asyncio.to_thread(_calibrate_staff, client)
            self._say(describe_calibration(stage))
            await asyncio.Event().wait()


def _register(client: ApiClient, collection: str, character: Character, photos: int) -> None:
    fields = {
        "collection": collection,
        "name": character.name,
        "consent_purpose": PURPOSE,
        "consent_recorded_by": RECORDED_BY,
        "allow_lookalike": "true",  # whether two drawn faces are of one person is known without a search
    }
    client.send_form("/v1/register", fields, [photograph(character.face, take) for take in range(photos)])


def _calibrate_staff(client: ApiClient) -> None:
    client.send_json("POST", "/v1/collections", {"name": STAFF_GALLERY})
    for character in STAFF:
        _register(client, STAFF_GALLERY, character, 2)
    client.send_json("POST", f"/v1/collections/{STAFF_GALLERY}/calibration", {"apply": True})


def _write_photos(folder: Path) -> Path:
    """Write photos to try things with; return their folder."""
    folder.mkdir()
    (folder / "group.jpg").write_bytes(draw_group())
    (folder / "newcomer.jpg").write_bytes(photograph(NEWCOMER, 0))
    return folder


def _has_desktop() -> bool:
    """Return whether opening a page would not take over this terminal."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
