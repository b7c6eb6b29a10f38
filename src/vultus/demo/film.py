"""What the demo's camera shows: a corridor through which drawn people walk, one after another and two together."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from vultus.demo.features import invent_features
from vultus.demo.people import CAST, STRANGER
from vultus.demo.portraits import View, draw_figure

if TYPE_CHECKING:
    from vultus.domain import Pixels

WIDTH, HEIGHT, FPS = 960, 540, 8
LOOP_S = 41.0
YAW_STEP = 0.15
"""Radians between the poses in which a figure is drawn."""

LOOKS = (2, 1, 0, 0, 0, 1, 2)
"""Steps by which somebody looks ahead while they cross the picture; before its middle they look into the camera."""

CORRIDOR_LIGHT = (0.1, -0.5)
JPEG_QUALITY = 85


class Walk(NamedTuple):
    """Somebody who crosses the picture.

    Attributes:
        face: Seed of the face.
        begin_s: When, from the beginning of the loop.
        seconds: How long.
        side_px: Of the figure as drawn.
        heading: 1 to the right, −1 to the left.
    """

    face: int
    begin_s: float
    seconds: float
    side_px: int
    heading: int


WALKS = (
    Walk(CAST[0].face, 0.0, 7.0, 360, 1),
    Walk(CAST[1].face, 5.0, 7.0, 340, -1),
    Walk(STRANGER, 10.0, 7.0, 350, -1),
    Walk(CAST[2].face, 16.0, 8.0, 320, -1),
    Walk(CAST[3].face, 17.0, 8.0, 380, -1),
    Walk(CAST[4].face, 24.0, 7.0, 350, 1),
    Walk(CAST[5].face, 31.0, 8.0, 340, 1),
    Walk(CAST[6].face, 31.5, 8.0, 370, -1),
)
"""Farthest first where two are together."""


def list_walkers(at_s: float) -> list[tuple[Walk, float, float]]:
    """Return who is in the picture at a time, with the place of their figure's left upper corner, pixels."""
    found = []
    for walk in WALKS:
        share = (at_s - walk.begin_s) / walk.seconds
        if 0 <= share < 1:
            way = share if walk.heading > 0 else 1 - share
            sway = 4 * math.sin(at_s * 7)
            found.append((walk, way * (WIDTH + walk.side_px) - walk.side_px, HEIGHT - walk.side_px + 8 + sway))
    return found


def draw_frame(number: int) -> Pixels:
    """Return a frame of the loop, (540, 960, 3)."""
    at_s = number / FPS % LOOP_S
    canvas = Image.fromarray(_draw_corridor())
    for walk, left, top in list_walkers(at_s):
        share = (at_s - walk.begin_s) / walk.seconds
        figure, mask = _draw_walker(walk.face, walk.side_px, walk.heading * LOOKS[int(share * len(LOOKS))])
        canvas.paste(figure, (round(left), round(top)), mask)
    grain = np.random.default_rng(number).standard_normal((HEIGHT, WIDTH, 1), np.float32)
    frame: Pixels = np.clip(np.asarray(canvas) + 1.5 * grain, 0, 255).astype(np.uint8)
    return frame


@lru_cache(maxsize=round(LOOP_S * FPS))
def encode_frame(number: int) -> bytes:
    """Return a frame of the loop as a JPEG; `number` is below the loop's length in frames."""
    stream = io.BytesIO()
    Image.fromarray(draw_frame(number)).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


@lru_cache(maxsize=64)
def _draw_walker(face: int, side_px: int, look: int) -> tuple[Image.Image, Image.Image]:
    """Return a figure and its mask."""
    view = View(yaw=look * YAW_STEP, smile=0.3 if look == 0 else 0.1, light=CORRIDOR_LIGHT)
    picture, mask = draw_figure(invent_features(face), view, side=side_px)
    figure, cover = (np.clip(plane * 255, 0, 255).astype(np.uint8) for plane in (picture, mask))
    return Image.fromarray(figure), Image.fromarray(cover)


@lru_cache(maxsize=1)
def _draw_corridor() -> Pixels:
    """Return the empty corridor: a wall that gets darker to the sides, a door, and a floor."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    wall = (
        np.array([196, 200, 198], np.float32) * (1 - 0.25 * ((x / WIDTH - 0.5) * 2) ** 2 - 0.1 * y / HEIGHT)[..., None]
    )
    floor = np.array([120, 110, 100], np.float32) * (0.8 + 0.4 * (y / HEIGHT - 0.85))[..., None]
    picture = np.where((y > HEIGHT * 0.86)[..., None], floor, wall)
    door = (abs(x - 0.8 * WIDTH) < 90) & (y > 70) & (y < HEIGHT * 0.86)
    frame = door & ~((abs(x - 0.8 * WIDTH) < 80) & (y > 80))
    picture = np.where(door[..., None], np.array([150, 128, 104], np.float32), picture)
    picture = np.where(frame[..., None], np.array([232, 232, 228], np.float32), picture)
    result: Pixels = picture.astype(np.uint8)
    return result
