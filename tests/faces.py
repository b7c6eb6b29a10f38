"""Test photos: scikit-image's astronaut, a NASA portrait in the public domain, and faces drawn here."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

from vultus.domain import Pixels


@lru_cache(maxsize=1)
def astronaut() -> Pixels:
    """(512, 512, 3) RGB with one face looking at the camera."""
    return np.asarray(data.astronaut())  # type: ignore[no-untyped-call]


def encoded(pixels: Any, form: str = "JPEG", **options: Any) -> bytes:
    """Return pixels, or a Pillow image, as a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, form, **({"quality": 92} if form == "JPEG" else {}) | options)
    return stream.getvalue()


def portrait(*, scale: float = 1.0, angle: float = 0.0, brightness: float = 1.0, mirror: bool = False) -> bytes:
    """Return another photo of the same person as a JPEG."""
    image = Image.fromarray(astronaut())
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        image = image.rotate(angle, Image.Resampling.BICUBIC)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return encoded(np.clip(np.asarray(image) * brightness, 0, 255).astype(np.uint8))


def nobody() -> bytes:
    """Return a photo without a face."""
    ramp = np.linspace(0, 255, 320 * 240 * 3).reshape(240, 320, 3)
    return encoded(ramp.astype(np.uint8))


STRANGER = 7
"""The drawn face least similar to the astronaut: cosine 0.89, well below the threshold of any useful error rate."""


def drawn(seed: int, *, side: int = 400) -> Pixels:
    """Draw a face that is no person's, (side, side, 3); detectors and embedders accept it.

    Args:
        seed: Selects the face.
        side: Width and height, pixels.
    """
    chance = np.random.default_rng(seed)
    image = Image.new("RGB", (400, 400), _colour(chance, 60, 200))
    middle = (200.0, 210.0)
    skin = _shade((236, 188, 160), chance.uniform(0.55, 1))
    hair = _shade((120, 80, 50), chance.uniform(0.2, 0.9))
    half = (chance.uniform(88, 112), chance.uniform(120, 145))
    _draw_head(ImageDraw.Draw(image), chance, middle, half, skin, hair)
    image = image.filter(ImageFilter.GaussianBlur(4))
    _draw_features(ImageDraw.Draw(image), chance, middle, skin, hair)
    image = image.filter(ImageFilter.GaussianBlur(1.6))
    y, x = np.mgrid[0:400, 0:400]
    aside, down = (x - middle[0]) / half[0], (y - middle[1]) / half[1]
    light = np.clip(1 + chance.uniform(-0.25, 0.25) * aside - 0.12 * abs(aside) - 0.15 * down, 0.5, 1.2)
    lit = np.asarray(image) * light[..., None] + chance.normal(0, 4, (400, 400, 1))
    finished = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    return np.asarray(finished.resize((side, side), Image.Resampling.LANCZOS))


Colour = tuple[int, int, int]
Point = tuple[float, float]


def _colour(chance: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (int(value) for value in chance.integers(low, high, 3))
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(value * factor)) for value in colour)
    return red, green, blue


def _around(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _draw_head(
    pen: ImageDraw.ImageDraw, chance: np.random.Generator, middle: Point, half: Point, skin: Colour, hair: Colour
) -> None:
    (x, y), (width, height) = middle, half
    pen.rectangle((x - 45, y + height - 40, x + 45, 400), fill=_shade(skin, 0.85))
    pen.ellipse((x - 130, y + height + 10, x + 130, 540), fill=_colour(chance, 30, 200))
    pen.ellipse((x - width - 14, y - height - 30, x + width + 14, y + height * 0.55), fill=hair)
    pen.ellipse(_around(x, y, width, height), fill=skin)
    fringe = (x - width - 4, y - height - 16, x + width + 4, y + height * 0.5)
    pen.pieslice(fringe, 180 + chance.uniform(5, 20), 360 - chance.uniform(5, 20), fill=hair)


def _draw_features(
    pen: ImageDraw.ImageDraw, chance: np.random.Generator, middle: Point, skin: Colour, hair: Colour
) -> None:
    x, eyes = middle[0], middle[1] - chance.uniform(14, 28)
    eye_offset, wide, tall = chance.uniform(38, 48), chance.uniform(13, 18), chance.uniform(7, 10)
    iris, brow, thick = _colour(chance, 20, 120), chance.uniform(24, 30), int(chance.uniform(5, 9))
    for side in (-1, 1):
        eye = x + side * eye_offset
        pen.ellipse(_around(eye, eyes, wide + 6, tall + 7), fill=_shade(skin, 0.82))
        pen.ellipse(_around(eye, eyes, wide, tall), fill=(238, 235, 230))
        pen.ellipse(_around(eye, eyes, tall * 0.95, tall * 0.95), fill=iris)
        pen.ellipse(_around(eye, eyes, tall * 0.45, tall * 0.45), fill=(5, 5, 5))
        pen.arc(_around(eye, eyes, wide + 2, tall + 3), 190, 350, fill=(30, 20, 15), width=3)
        ends = (eye - side * wide * 1.2, eyes - brow + 2, eye, eyes - brow - 5, eye + side * wide * 1.3, eyes - brow)
        pen.line(ends, fill=_shade(hair, 0.7), width=thick)
    length, flare = chance.uniform(38, 50), chance.uniform(13, 20)
    tip = eyes + length
    pen.line((x + 6, eyes + 4, x + flare * 0.8, tip), fill=_shade(skin, 0.84), width=4)
    pen.ellipse((x - flare, tip - 4, x + flare, tip + 12), fill=_shade(skin, 0.9))
    for side in (-1, 1):
        pen.ellipse(_around(x + side * flare * 0.55, tip + 8, 4, 3), fill=_shade(skin, 0.45))
    mouth, wide, tall = tip + chance.uniform(30, 40), chance.uniform(27, 38), chance.uniform(7, 12)
    pen.ellipse(_around(x, mouth, wide, tall), fill=_shade((190, 90, 90), chance.uniform(0.8, 1)))
    pen.line((x - wide, mouth, x, mouth + 2, x + wide, mouth), fill=(90, 30, 35), width=3)
