"""Simulated recaptures of photos from a screen or from paper: they test the plumbing, not the accuracy."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vultus.domain import Pixels

GAMMA = 2.2
DOT_ANGLES_DEG = (15, 75, 45)
"""Screen angles of the three printed colours."""


def on_screen(photo: Pixels, seed: int) -> Pixels:
    """Render a photo on red, green and blue subpixels and sample it below their resolution: moiré."""
    chance = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    shown: Any = np.repeat(np.repeat((photo / 255.0) ** GAMMA, 3, axis=0), 3, axis=1).astype(np.float32)
    for colour in range(3):
        stripes = np.zeros(3 * width, np.float32)
        stripes[colour::3] = 3
        shown[:, :, colour] *= stripes
    shown[2::3] *= 0.35
    turn = cv2.getRotationMatrix2D((1.5 * width, 1.5 * height), chance.uniform(-4, 4), chance.uniform(0.28, 0.42))
    turn[:, 2] -= (width, height)
    seen = cv2.warpAffine(cv2.GaussianBlur(shown, (0, 0), 0.9), turn, (width, height)) * (0.95, 1, 1.12)
    y, x = np.mgrid[:height, :width]
    glare = (x - chance.uniform(0, width)) ** 2 + (y - chance.uniform(0, height)) ** 2
    seen += 0.25 * np.exp(-glare / (2 * (0.15 * width) ** 2))[..., None]
    return _held_up(255 * np.clip(seen + 0.02, 0, 1) ** (1 / GAMMA), chance, frame=12)


def on_paper(photo: Pixels, seed: int) -> Pixels:
    """Halftone a photo with the contrast of ink, lit from one side."""
    chance = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    fine = cv2.resize(photo, (4 * width, 4 * height), interpolation=cv2.INTER_CUBIC) / 255.0
    y, x = np.mgrid[: 4 * height, : 4 * width] * (2 * np.pi / 5)
    dots = np.empty(fine.shape, np.float32)
    for colour, angle in enumerate(np.radians(DOT_ANGLES_DEG)):
        across, down = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        dots[:, :, colour] = fine[:, :, colour] > 0.48 + 0.225 * (np.cos(across) + np.cos(down))
    ink = cv2.resize(cv2.GaussianBlur(dots, (0, 0), 1.6), (width, height), interpolation=cv2.INTER_AREA)
    light = np.linspace(chance.uniform(0.8, 1), chance.uniform(0.9, 1.1), width)[:, None]
    return _held_up(255 * (0.12 + 0.72 * ink) * light, chance, frame=215)


def _held_up(picture: Any, chance: np.random.Generator, *, frame: int) -> Pixels:
    """Composite a picture with a grey frame over a blurred room, in slight perspective."""
    edge = round(0.06 * picture.shape[1])
    framed = np.pad(picture.astype(np.float32), ((edge, edge), (edge, edge), (0, 0)), constant_values=frame)
    height, width = framed.shape[:2]
    around = round(0.35 * width)
    size = (width + 2 * around, height + 2 * around)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + around + (chance.uniform(-0.04, 0.04, (4, 2)) * width)
    view = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    room: Any = cv2.resize(chance.uniform(40, 200, (6, 6, 3)), size, interpolation=cv2.INTER_CUBIC)
    hidden: Any = cv2.warpPerspective(np.ones((height, width), np.float32), view, size)
    seen: Any = cv2.warpPerspective(framed, view, size)
    mixed = seen * hidden[..., None] + room * (1 - hidden[..., None])
    taken: Pixels = np.clip(mixed + chance.normal(0, 3, mixed.shape), 0, 255).astype(np.uint8)
    return taken
