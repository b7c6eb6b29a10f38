"""Who is in the demo: drawn people, chosen so that the networks tell them apart, and photos of them.

Of the first 260 faces of `invent_features`, three photos each, 246 pass every rule of enrolment with YuNet and SFace
and with the built-in MTCNN and ResNet alike. Cast, stranger and newcomer are ten of them, found by a search for a set
with low cosines. Photos of two of them have at most 0.446 (SFace; its threshold is 0.493) and 0.936 (built in; 0.946),
those of one person at least 0.863 and 0.978. `tests/unit/demo/test_people.py` holds them to the thresholds.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from vultus.demo.complexion import blend
from vultus.demo.features import invent_features
from vultus.demo.portraits import SIDE, View, draw_figure, draw_portrait

if TYPE_CHECKING:
    from vultus.domain import Pixels

JPEG_QUALITY = 92
GROUP_SIZE, GROUP_WALL = (1080, 620), (188, 196, 205)


class Character(NamedTuple):
    """Somebody of the demo, with the seed of their face."""

    face: int
    name: str


CAST = (
    Character(131, "Rosa Ibarra"),
    Character(73, "Marco Silva"),
    Character(62, "Ines Duarte"),
    Character(128, "Samuel Diallo"),
    Character(220, "Naomi Okafor"),
    Character(237, "Jonas Berg"),
    Character(110, "Zuri Mwangi"),
    Character(250, "Anton Weiss"),
)
"""Who is registered and passes the camera."""

STRANGER, NEWCOMER = 124, 25
"""Who passes the camera without being registered, and whose photo is there to be registered."""

STAFF = (
    Character(115, "Olga Petrova"),
    Character(169, "Tomas Novak"),
    Character(35, "Amira Haddad"),
    Character(97, "Leon Fischer"),
    Character(253, "Mei Tanaka"),
    Character(170, "Pavel Horak"),
    Character(63, "Chloe Martin"),
    Character(70, "Daniel Cohen"),
    Character(172, "Greta Holm"),
    Character(100, "Ravi Menon"),
    Character(158, "Luca Romano"),
    Character(132, "Hanna Lind"),
    Character(215, "Kofi Mensah"),
    Character(197, "Elena Popa"),
    Character(37, "Bruno Costa"),
    Character(176, "Sofia Marin"),
)
"""Who is in the collection that is calibrated: fifteen persons are the least."""

TAKES = (
    View(),
    View(yaw=0.3, pitch=0.08, smile=0.6, light=(0.4, -0.4), background=(0.55, 0.5, 0.45), seed=1),
    View(
        yaw=-0.25, pitch=-0.08, smile=0.0, light=(0, -0.7), ambient=0.4, background=(0.35, 0.42, 0.5), noise=4, seed=2
    ),
)
"""Three photos: from the front, smiling to one side in warm light, and earnest to the other in dim light."""

GROUP = (
    (CAST[3].face, 20, 20, 360, 0.15),
    (STRANGER, 520, 10, 380, -0.05),
    (CAST[0].face, 250, 215, 430, 0.1),
    (CAST[5].face, 650, 195, 445, -0.15),
)
"""Of the group, farthest first: face, left upper corner and side of the figure, pixels, and yaw."""


def photograph(face: int, take: int, *, side: int = SIDE) -> bytes:
    """Return a photo of somebody as a JPEG.

    Args:
        face: Seed of the face.
        take: Which of `TAKES`, counted on from its end.
        side: Width and height, pixels.
    """
    return encode_photo(draw_portrait(invent_features(face), TAKES[take % len(TAKES)], side=side))


def draw_group() -> bytes:
    """Return a photo of three registered people and a stranger, two behind two, as a JPEG."""
    width, height = GROUP_SIZE
    picture = np.full((height, width, 3), GROUP_WALL, np.float32) / 255
    for face, left, top, side, yaw in GROUP:
        view = View(yaw=yaw, smile=0.5, light=(0.2, -0.5))
        figure, mask = draw_figure(invent_features(face), view, side=side)
        below = (0, max(0, height - top - side))  # what they wear goes on to the picture's end
        figure, mask = np.pad(figure, (below, (0, 0), (0, 0)), "edge"), np.pad(mask, (below, (0, 0)), "edge")
        columns = min(side, width - left)
        place = slice(top, height), slice(left, left + columns)
        picture[place] = blend(picture[place], figure[: height - top, :columns], mask[: height - top, :columns])
    return encode_photo((np.clip(picture, 0, 1) * 255).astype(np.uint8))


def encode_photo(pixels: Pixels) -> bytes:
    """Return pixels as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
