"""Test clips: people who walk through a picture, drawn from the test faces, with where everybody is at any time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from tests.faces import astronaut, drawn, encoded
from vultus.domain import Box, Frame, Pixels

Path2d = Callable[[float], tuple[float, float]]
"""Maps seconds to the centre of a face, pixels."""

BEGIN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ASTRONAUT = -1
"""The astronaut's number; a drawn face has its seed's."""


@dataclass(frozen=True)
class Walker:
    """Somebody in a clip.

    Attributes:
        face: Number of the face.
        path: Where its centre is.
        side_px: Height of the head.
        since: First second in the picture.
        until: Last one.
        absent: Seconds from and to which they are away in between.
    """

    face: int
    path: Path2d
    side_px: float = 150
    since: float = 0.0
    until: float = math.inf
    absent: tuple[float, float] = (math.inf, math.inf)

    def find_box(self, at: float) -> Box | None:
        """Return where the head is; None while it is not in the picture."""
        if not self.since <= at <= self.until or self.absent[0] <= at <= self.absent[1]:
            return None
        x, y = self.path(at)
        width = self.side_px * 0.72
        return Box(x - width / 2, y - self.side_px / 2, x + width / 2, y + self.side_px / 2)


@dataclass(frozen=True)
class Clip:
    """A video that is drawn.

    Attributes:
        walkers: Farthest first: each hides those before it.
        seconds: Length.
    """

    walkers: tuple[Walker, ...]
    seconds: float
    width: int = 640
    height: int = 480

    def draw(self, at: float) -> Pixels:
        """Draw the picture at a time, (height, width, 3)."""
        canvas = Image.fromarray(_background(self.width, self.height))
        for walker in self.walkers:
            box = walker.find_box(at)
            if box is not None:
                head, mask = _head(walker.face, round(walker.side_px))
                canvas.paste(head, (round(box.left), round(box.top)), mask)
        noise = np.random.default_rng(round(at * 1000)).normal(0, 2, (self.height, self.width, 1))
        return np.clip(np.asarray(canvas) + noise, 0, 255).astype(np.uint8)

    def list_boxes(self, at: float, *, min_visible: float = 0.0) -> dict[int, Box]:
        """Return the heads in the picture by the number of their face, those visible to at least a share."""
        boxes = [(walker.face, walker.find_box(at)) for walker in self.walkers]
        found: dict[int, Box] = {}
        for rank, (face, box) in enumerate(boxes):
            if box is None or not (0 <= box.centre[0] < self.width and 0 <= box.centre[1] < self.height):
                continue
            hidden = max((_share_covered(box, other) for _, other in boxes[rank + 1 :] if other), default=0.0)
            if 1 - hidden >= min_visible:
                found[face] = box
        return found

    def list_frames(self, fps: float, *, begin: datetime = BEGIN) -> Iterator[tuple[float, Frame]]:
        """Yield the seconds and the frame of each picture."""
        for sequence in range(math.ceil(self.seconds * fps)):
            at = sequence / fps
            yield at, Frame(encoded(self.draw(at)), sequence, begin + timedelta(seconds=at))


def portrait_of(face: int) -> bytes:
    """Return a photo of one of the people, to enrol."""
    return encoded(astronaut() if face == ASTRONAUT else drawn(face))


def stand(x: float, y: float) -> Path2d:
    return lambda _at: (x, y)


def walk(start: tuple[float, float], velocity: tuple[float, float]) -> Path2d:
    """Go straight on, pixels and pixels per second."""
    return lambda at: (start[0] + velocity[0] * at, start[1] + velocity[1] * at)


def swing(centre: tuple[float, float], reach: tuple[float, float], period_s: float, phase: float = 0.0) -> Path2d:
    """Go to and fro around a centre, as far as `reach` to either side."""

    def path(at: float) -> tuple[float, float]:
        angle = 2 * math.pi * at / period_s + phase
        return centre[0] + reach[0] * math.sin(angle), centre[1] + reach[1] * math.sin(2 * angle)

    return path


def two_crossing(seconds: float = 8.0) -> Clip:
    """Two people who pass each other again and again, one behind the other."""
    return Clip(
        (
            Walker(7, swing((320, 240), (200, 8), 4.0), 150),
            Walker(ASTRONAUT, swing((320, 255), (200, 8), 4.0, math.pi), 165),
        ),
        seconds,
    )


def five_crossing(seconds: float = 10.0) -> Clip:
    """Five people who pass each other at different paces; one leaves and comes back."""
    return Clip(
        (
            Walker(1, swing((330, 130), (230, 10), 6.0, 0.5), 105),
            Walker(6, swing((320, 160), (240, 10), 5.0, math.pi), 115, absent=(4.0, 5.5)),
            Walker(5, swing((330, 300), (230, 12), 7.0, 2.0), 135),
            Walker(7, swing((320, 330), (220, 10), 5.5, 4.0), 145),
            Walker(ASTRONAUT, swing((310, 350), (210, 8), 4.5, 0.0), 155),
        ),
        seconds,
    )


def two_turning_back(seconds: float = 8.0) -> Clip:
    """Two people who meet, the one hidden by the other, and go back where they came from."""

    def approach(side: int) -> Path2d:
        return lambda at: (320 + side * 190 * abs(math.cos(math.pi * at / 4)), 245 + 8 * side)

    return Clip((Walker(7, approach(-1), 150), Walker(ASTRONAUT, approach(1), 165)), seconds)


def random_crossing(seed: int, seconds: float = 8.0) -> Clip:
    """Five people who go to and fro at random paces, some of whom leave and come back."""
    chance = np.random.default_rng(seed)
    walkers = []
    for rank, face in enumerate((1, 6, 5, 7, ASTRONAUT)):
        centre = (chance.uniform(250, 390), 130 + rank * 55 + chance.uniform(-30, 30))
        reach = (chance.uniform(100, 240), chance.uniform(0, 20))
        path = swing(centre, reach, chance.uniform(3, 8), chance.uniform(0, 6.28))
        away = chance.uniform(1, 5)
        absent = (away, away + chance.uniform(0.3, 2)) if chance.random() < 0.5 else (math.inf, math.inf)
        walkers.append(Walker(face, path, 105 + rank * 13, absent=absent))
    return Clip(tuple(walkers), seconds)


@lru_cache(maxsize=64)
def _head(face: int, side_px: int) -> tuple[Image.Image, Image.Image]:
    """Return a head cut out of its photo, and how opaque it is."""
    pixels = astronaut() if face == ASTRONAUT else drawn(face)
    centre, half = ((223.0, 112.0), (72.0, 100.0)) if face == ASTRONAUT else ((200.0, 200.0), (130.0, 180.0))
    left, top = round(centre[0] - half[0]), round(centre[1] - half[1])
    cut = pixels[top : round(centre[1] + half[1]), left : round(centre[0] + half[0])]
    y, x = np.mgrid[0 : cut.shape[0], 0 : cut.shape[1]]
    radius = np.hypot((x - cut.shape[1] / 2) / (cut.shape[1] / 2), (y - cut.shape[0] / 2) / (cut.shape[0] / 2))
    mask = (np.clip((1 - radius) / 0.08, 0, 1) * 255).astype(np.uint8)
    size = (round(side_px * 0.72), side_px)
    return tuple(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS) for one in (cut, mask))  # type: ignore[return-value]


@lru_cache(maxsize=4)
def _background(width: int, height: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    grey = 110 + 30 * np.sin(x / 61) + 25 * np.cos(y / 47) + 20 * ((x // 40 + y // 60) % 2)
    return np.stack([grey, grey * 1.02, grey * 0.95], axis=2).clip(0, 255).astype(np.uint8)


def _share_covered(box: Box, by: Box) -> float:
    width = min(box.right, by.right) - max(box.left, by.left)
    height = min(box.bottom, by.bottom) - max(box.top, by.top)
    return max(0.0, width) * max(0.0, height) / (box.width * box.height)


CLIPS: dict[str, Callable[[], Clip]] = {
    "two who cross": two_crossing,
    "two who turn back": two_turning_back,
    "five who cross": five_crossing,
    **{f"five at random, {seed}": partial(random_crossing, seed) for seed in range(1, 5)},
}
"""Those that trackers are compared on."""
