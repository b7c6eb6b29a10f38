"""Photos to measure with: scikit-image's astronaut and drawn faces in deterministic scenes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tests.faces import astronaut, drawn, encoded

if TYPE_CHECKING:
    from vultus.domain import Pixels

FULL_SIZE = (4000, 3000)
"""Width and height of a 12-megapixel phone photo, pixels."""

MEGAPIXEL_SIZE = (1155, 866)
NEAR_PORTRAIT_PX, FAR_PORTRAIT_PX = 2040, 640
"""Height of the astronaut's portrait in the scene, pixels; the face is about a sixth of it wide."""

SENSOR_NOISE = 8.0
"""Deviation of the phone-like grain, grey levels: a 12-megapixel JPEG of quality 90 has 4 MB, as from phones."""

DRAWN_FACE_SEEDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 17, 21, 24, 25, 27, 28)
"""Seeds of drawn faces that both detectors detect as one face each."""

FOLDER_VARIABLE = "VULTUS_BENCH_PHOTOS"


@dataclass(frozen=True, slots=True)
class Sample:
    """A photo as a file.

    Attributes:
        name: Used in results and tables.
        content: A JPEG.
        width: Pixels.
        height: Pixels.
    """

    name: str
    content: bytes
    width: int
    height: int

    @classmethod
    def from_pixels(cls, name: str, pixels: Pixels) -> Sample:
        """Encode pixels, (height, width, 3)."""
        return cls(name, encoded(pixels, quality=90), pixels.shape[1], pixels.shape[0])


def build_samples() -> list[Sample]:
    """Return every photo, small ones first."""
    return [
        build_lfw_like_sample(),
        build_portrait_sample(),
        build_megapixel_sample(),
        Sample.from_pixels("20 faces", _build_group()),
        Sample.from_pixels("12 MP, smooth", _build_scene(NEAR_PORTRAIT_PX)),
        Sample.from_pixels("12 MP, phone-like", _add_grain(_build_scene(NEAR_PORTRAIT_PX))),
        Sample.from_pixels("12 MP, face far away", _add_grain(_build_scene(FAR_PORTRAIT_PX))),
    ]


def build_lfw_like_sample() -> Sample:
    """Return 250 × 250 pixels around a face of about 90, as the photos of LFW are."""
    return Sample.from_pixels("LFW-like", np.ascontiguousarray(astronaut()[:250, 100:350]))


def build_portrait_sample() -> Sample:
    """Return the astronaut, 512 × 512."""
    return Sample.from_pixels("astronaut", astronaut())


def build_megapixel_sample() -> Sample:
    """Return the scene of the phone-like photo at a twelfth of its pixels."""
    return Sample.from_pixels("1 MP", _resize_pixels(_add_grain(_build_scene(NEAR_PORTRAIT_PX)), *MEGAPIXEL_SIZE))


def build_half_grain_sample() -> Sample:
    """Return the scene of the phone-like photo with half of its grain; a plain decoder takes 40 ms on a Zen 4."""
    return Sample.from_pixels("12 MP, half as grainy", _add_grain(_build_scene(NEAR_PORTRAIT_PX), SENSOR_NOISE / 2))


def list_portraits() -> list[bytes]:
    """Return portraits of 20 persons, the astronaut first."""
    return [build_portrait_sample().content, *(encoded(drawn(seed)) for seed in DRAWN_FACE_SEEDS)]


def find_real_photos(max_photos: int) -> tuple[str, list[Path]]:
    """Return the name of the folder in `VULTUS_BENCH_PHOTOS` and at most `max_photos` of its JPEGs, evenly spread."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return "", []
    root = Path(folder).resolve(strict=True)
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    return root.name, found[:: max(1, len(found) // max_photos)][:max_photos]


def _build_scene(portrait_px: int) -> Pixels:
    """Return 12 megapixels of clutter with the astronaut's portrait, `portrait_px` high, a little off the middle."""
    width, height = FULL_SIZE
    chance = np.random.default_rng(0)
    scene = np.full((height, width, 3), 120.0, np.float32)
    # Each octave twice as fine and 0.6 times as strong, about as the spectrum of photos falls.
    for octave in range(9):
        grid = chance.normal(0, 45 * 0.6**octave, (3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(grid[..., channel]).resize((width, height), Image.Resampling.BILINEAR)
            scene[..., channel] += np.asarray(layer)
    pixels = np.clip(scene, 0, 255).astype(np.uint8)
    left, top = (width - portrait_px) * 2 // 5, height - portrait_px
    pixels[top:, left : left + portrait_px] = _resize_pixels(astronaut(), portrait_px, portrait_px)
    return pixels


def _add_grain(pixels: Pixels, noise: float = SENSOR_NOISE) -> Pixels:
    grain = np.random.default_rng(1).standard_normal(pixels.shape[:2], np.float32)[..., None]
    return np.clip(pixels + noise * grain, 0, 255).astype(np.uint8)


def _build_group() -> Pixels:
    """Return 20 faces in four rows of five, 1,600 × 1,280 pixels."""
    group = np.full((1280, 1600, 3), 90, np.uint8)
    faces = [_resize_pixels(astronaut()[:400, 30:430], 320, 320), *(drawn(seed, side=320) for seed in DRAWN_FACE_SEEDS)]
    for at, face in enumerate(faces):
        row, column = divmod(at, 5)
        group[row * 320 : (row + 1) * 320, column * 320 : (column + 1) * 320] = face
    return group


def _resize_pixels(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
