"""The shape of a drawn face: how far each of its points stands out, and where its outline is.

Lengths are in halves of the head's height: x from the middle to the picture's right, y down from between crown and
chin, and z towards the viewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from vultus.demo.features import Features

Plane = NDArray[np.floating[Any]]
"""(height, width) values, one per pixel."""

SOFT = 0.012
"""Width of an edge."""


def fade_in(value: Plane, width: float = SOFT) -> Plane:
    """Return 1 where a value is positive and 0 where it is negative, softly."""
    result: Plane = np.clip(value / np.float32(width) + np.float32(0.5), 0, 1)
    return result


def ring_bell(x: Plane, y: Plane, centre: tuple[float, float], spread: tuple[float, float]) -> Plane:
    """Return a Gaussian bell of height 1."""
    result: Plane = np.exp(-(((x - centre[0]) / spread[0]) ** 2 + ((y - centre[1]) / spread[1]) ** 2) / 2)
    return result


def draw_ridge(distance: Plane, width: float) -> Plane:
    """Return 1 on a line and less with the distance from it."""
    result: Plane = np.exp(-((distance / np.float32(width)) ** 2))
    return result


def make_noise(seed: int, blur: float | tuple[float, float], shape: tuple[int, ...]) -> Plane:
    """Return smooth noise of variance 1."""
    white = np.random.default_rng(seed).standard_normal(shape, np.float32)
    noise: Plane = ndimage.gaussian_filter(white, blur)
    noise /= noise.std()
    return noise


def outline_head(face: Features, y: Plane) -> Plane:
    """Return half of the head's width at each height."""
    skull = np.clip(1 - np.clip(-y, 0, 1) ** 2.3, 0, 1) ** (1 / 2.1)
    jaw = np.clip(1 - np.clip(y, 0, 1) ** face.jaw, 0, 1) ** (1 / 1.7) * (1 - 0.16 * np.clip(y, 0, 1))
    width: Plane = face.width * np.where(y < 0, skull, jaw)
    return width


def trace_mouth(face: Features, x: Plane, smile: float) -> tuple[Plane, float]:
    """Return the height of the line between the lips at each x, and half of its width."""
    width = face.mouth.width * (1 + 0.18 * smile)
    return face.mouth_y + smile * (0.012 - 0.05 * np.clip(abs(x) / width, 0, 1.3) ** 2), width


def compute_depth(face: Features, x: Plane, y: Plane) -> Plane:
    """Return how far the points of a head stand out, coarsely and without an edge: what turning needs."""
    dome = 0.62 * np.sqrt(np.clip(1 - (x / (1.15 * face.width)) ** 2 - (y / 1.3) ** 2, 0.03, 1))
    depth: Plane = dome + _shape_nose(face, x, y)
    return depth


def shape_face(face: Features, x: Plane, y: Plane, smile: float) -> Plane:
    """Return how far the points of a face stand out."""
    aside, eyes = abs(x), face.eyes
    width = np.maximum(outline_head(face, y), 1e-3)
    z: Plane = 0.75 * np.sqrt(np.clip(1 - abs(x / width) ** 2.4, 0, 1))
    z = z * (1 - 0.25 * np.clip(abs(y + 0.1), 0, 1) ** 3)
    z += 0.05 * ring_bell(x, y, (0, eyes.height - face.brows.distance), (0.5, 0.07))
    z -= eyes.depth * ring_bell(aside, y, (eyes.gap * 0.95, eyes.height), (eyes.width * 1.15, 0.1))
    z += 0.07 * ring_bell(aside, y, (eyes.gap, eyes.height + 0.005), (eyes.width * 0.55, 0.06))
    cheeks = (eyes.gap * 1.25, eyes.height + 0.27 - 0.03 * smile)
    z += face.cheeks * (1 + 0.6 * smile) * ring_bell(aside, y, cheeks, (0.13, 0.1))
    z += face.chin * ring_bell(x, y, (0, 0.9), (0.16, 0.1))
    z += _shape_nose(face, x, y) + _shape_mouth(face, x, y, smile) + _shape_lines(face, x, y, smile)
    return z


def _shape_nose(face: Features, x: Plane, y: Plane) -> Plane:
    nose, base, top = face.nose, face.nose_y, face.eyes.height - 0.05
    along = np.clip((y - top) / (base - top), 0, 1.1)
    height = nose.bridge * 0.55 * (1 - along) + nose.tip * along
    ridge = np.exp(-((x / (0.045 + 0.5 * along * nose.width)) ** 2) / 2) * np.clip(along * 6, 0, 1)
    z: Plane = height * ridge * (1 - fade_in(y - base, 0.09))
    z += 0.35 * nose.tip * ring_bell(x, y, (0, base - 0.045), (nose.width * 0.5, 0.055))
    z += 0.38 * nose.tip * ring_bell(abs(x), y, (nose.width * 0.72, base - 0.03), (nose.width * 0.3, 0.05))
    return z


def _shape_mouth(face: Features, x: Plane, y: Plane, smile: float) -> Plane:
    line, width = trace_mouth(face, x, smile)
    mouth, middle = face.mouth, face.mouth_y
    lips = np.sqrt(np.clip(1 - (x / width) ** 2, 0, 1))
    z: Plane = 0.05 * ring_bell(x, y, (0, middle), (width * 0.8, 0.12))
    z += 0.045 * lips * draw_ridge(y - line + mouth.upper * 0.6, mouth.upper)
    z += 0.055 * lips * draw_ridge(y - line - mouth.lower * 0.6, mouth.lower)
    z -= 0.05 * lips * draw_ridge(y - line, 0.017)
    z -= 0.02 * ring_bell(x, y, (0, face.nose_y + mouth.distance * 0.45), (0.025, 0.05))
    return z - 0.03 * ring_bell(x, y, (0, middle + mouth.lower + 0.055), (width * 0.6, 0.03))


def _shape_lines(face: Features, x: Plane, y: Plane, smile: float) -> Plane:
    """Return the lines of age and smile: from the nose to the mouth, on the forehead and under the eyes."""
    aside, eyes = abs(x), face.eyes
    fold = aside - (face.nose.width * 0.95 + (y - face.nose_y + 0.03) * 0.55)
    reach = fade_in(y - face.nose_y + 0.05, 0.1) * (1 - fade_in(y - face.mouth_y - 0.03, 0.1))
    z: Plane = -(0.008 + 0.03 * face.age + 0.02 * smile) * draw_ridge(fold, 0.031) * reach
    for number in range(3):
        height = eyes.height - 0.3 - 0.07 * number + 0.02 * np.cos(4 * x)
        z -= 0.012 * face.age * draw_ridge(y - height, 0.017) * draw_ridge(x, 0.3)
    bags = y - eyes.height - 0.1 - 0.25 * (aside - eyes.gap) ** 2
    return z - 0.02 * face.age * draw_ridge(bags, 0.021) * draw_ridge(aside - eyes.gap, eyes.width * 0.9)
