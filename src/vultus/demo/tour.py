"""What the demo says: where everything is, what to look at, and what to type in a second terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from vultus.models.catalog.packs import BUILTIN, RECOMMENDED
from vultus.settings import Settings

TOUR = """\

Nobody in this demo exists: the faces are drawn, by this program. Nothing of it stays: it lives in {folder}.

  Console   {console}
  Key       {key}
            It may do everything here. Paste it into the console: a key never stands in an address.
  Camera    {camera}  (open it in a browser to see what the server sees)
  Networks  {networks}

To look at
  {console}#/people       who is registered, with their consents and the quality of their photos
  {console}#/recognise    drop {group}: three are registered, one is not
  {console}#/people/new   add {newcomer}, and see them named from then on
  {console}#/live         your own camera, if you have one: a stranger, until you are registered
  {console}#/events       who passes the camera; it is printed below too, as a webhook delivers it
  {console}#/cameras      what the camera sees, and how it is doing
  {console}#/calibration  what a threshold would cost; choose the collection '{staff}' once it is announced
  {console}#/audit        who did what

In a second terminal
  export KEY={key} VULTUS_DATA_DIR={folder}{unset}
  curl -H "Authorization: Bearer $KEY" {address}/v1/recognize -F photo=@{group}
  curl -H "Authorization: Bearer $KEY" -N "{address}/v1/events/stream?type=recognised,unknown,left"
  {vultus} recognize {group}
  {vultus} watch {camera}
  {vultus} persons list
  {vultus} audit

Ctrl-C ends the demo."""

STAFF_GALLERY = "staff"
"""Name of the collection that is calibrated."""

SENTENCES = {
    "recognised": "{name} was recognised at the camera.",
    "unknown": "Somebody who is not registered passed the camera.",
    "source_lost": "The camera sends nothing any more.",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays.

    Attributes:
        address: Of the server.
        key: With every permission.
        camera: Address of what it watches.
        photos: Folder of photos to try things with.
        settings: Of the server.
    """

    address: str
    key: str
    camera: str
    photos: Path
    settings: Settings

    @property
    def console(self) -> str:
        """Address of the console."""
        return f"{self.address}/console"


def describe_tour(stage: Stage) -> str:
    """Return the tour."""
    pack = stage.settings.inference.pack
    networks = f"{pack}, which is installed here"
    if pack == BUILTIN.name:
        networks = (
            f"built in; more people are told apart by '{RECOMMENDED.name}': vultus models pull {RECOMMENDED.name}"
        )
    return TOUR.format(
        folder=quote(str(stage.settings.data_dir)),
        console=stage.console,
        key=stage.key,
        camera=stage.camera,
        networks=networks,
        group=quote(str(stage.photos / "group.jpg")),
        newcomer=quote(str(stage.photos / "newcomer.jpg")),
        address=stage.address,
        staff=STAFF_GALLERY,
        vultus=quote(_find_command()),
        # An empty variable counts as unset: the demo's database is its own.
        unset=" VULTUS_DATABASE__URL=" if os.environ.get("VULTUS_DATABASE__URL") else "",
    )


def describe_calibration(stage: Stage) -> str:
    """Return what to look at once the staff's collection is calibrated."""
    return f"The collection '{STAFF_GALLERY}' is calibrated on its own people: see {stage.console}#/calibration"


def describe_event(event: dict[str, Any]) -> str:
    """Return a delivered event as a sentence."""
    person = event["data"].get("person") or {}
    sentence = SENTENCES.get(event["type"], "{type}").format(name=person.get("name"), type=event["type"])
    return f"{event['timestamp'][11:19]} UTC  {sentence}"


def _find_command() -> str:
    """Return how this program was started, so that a line can be copied."""
    command = Path(sys.executable).with_name("vultus")
    return str(command) if command.exists() else "vultus"
