"""The photos that are measured, made at run time: the only person in them is scikit-image's astronaut."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image
from tests import faces

if TYPE_CHECKING:
    from vultus.domain import Pixels

LARGE = (4000, 3000)
MEGAPIXEL = (1155, 866)
COLUMNS, ROWS, TILE = 5, 4, 300
PERSONS = 10
FOLDER = "VULTUS_BENCH_PHOTOS"


@dataclass(frozen=True, slots=True)
class Sample:
    """A JPEG file and its size in pixels."""

    name: str
    width: int
    height: int
    content: bytes


def samples() -> list[Sample]:
    """Return all of them; the two of the large scene have its megapixels in their names, the smaller one first."""
    return [
        _sample("portrait", _head()),
        portrait(),
        megapixel(),
        _sample("scene, 12 MP", np.asarray(_scene())),
        _sample("group of 20", _group()),
    ]


def portrait() -> Sample:
    """Return the astronaut, 512 × 512."""
    return _sample("astronaut", faces.astronaut())


def megapixel() -> Sample:
    """Return the large scene, scaled to one megapixel."""
    return _sample("scene, 1 MP", np.asarray(_scene().resize(MEGAPIXEL, Image.Resampling.LANCZOS)))


def gallery() -> list[bytes]:
    """Return a photo each of people to enrol: the astronaut, a little turned, and drawn faces."""
    return [faces.portrait(angle=4), *(faces.encoded(faces.drawn(seed)) for seed in range(1, PERSONS))]


def real_photos(most: int) -> tuple[str, list[Path]]:
    """Return the name of the folder in `VULTUS_BENCH_PHOTOS` and JPEG files spread over it; none where it is not set.

    Raises:
        ValueError: The folder has none.
    """
    if not (named := os.environ.get(FOLDER)):
        return "", []
    folder = Path(named)
    every = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not every:
        raise ValueError(f"{FOLDER} names a folder without JPEG files.")
    return folder.name, every[:: max(1, len(every) // most)][:most]


def _sample(name: str, pixels: Pixels) -> Sample:
    return Sample(name, pixels.shape[1], pixels.shape[0], faces.encoded(pixels))


def _head() -> Pixels:
    """Return a part of the astronaut's photo, (250, 250, 3)."""
    return np.ascontiguousarray(faces.astronaut()[:250, 100:350])


@lru_cache(maxsize=1)
def _scene() -> Image.Image:
    """Return the astronaut, enlarged, before a blurred background, with a sensor's noise: a file of 3 MB and more."""
    width, height = LARGE
    chance = np.random.default_rng(12)
    canvas = np.full((height, width, 3), 128, np.float32)
    for cells, strength in ((8, 70), (60, 25), (500, 8)):
        coarse = chance.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
        canvas += cv2.resize(coarse, LARGE, interpolation=cv2.INTER_CUBIC)
    person = Image.fromarray(faces.astronaut()).resize((2000, 2000), Image.Resampling.LANCZOS)
    canvas[700:2700, 1000:3000] = np.asarray(person)
    canvas += chance.normal(0, 4, (height, width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def _group() -> Pixels:
    """Return the astronaut's head twenty times, every other one mirrored, each lit differently."""
    head = np.asarray(Image.fromarray(_head()).resize((TILE, TILE), Image.Resampling.LANCZOS))
    tiles = [
        np.clip((head if number % 2 else head[:, ::-1]) * light, 0, 255).astype(np.uint8)
        for number, light in enumerate(np.linspace(0.7, 1.15, COLUMNS * ROWS))
    ]
    return np.vstack([np.hstack(tiles[row * COLUMNS :][:COLUMNS]) for row in range(ROWS)])
