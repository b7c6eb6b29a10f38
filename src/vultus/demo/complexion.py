"""The colours of a drawn face: skin, beard, lips, brows, eyes and glasses, in its own coordinates (`relief`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.demo.features import Beard, Glasses
from vultus.demo.relief import draw_ridge, fade_in, make_noise, ring_bell, trace_mouth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.demo.features import Features
    from vultus.demo.relief import Plane

Picture = NDArray[np.floating[Any]]
"""(height, width, 3) of red, green and blue, 0..1."""

BEARD_COVER = {Beard.STUBBLE: 0.3, Beard.FULL: 0.92, Beard.MOUSTACHE: 0.92, Beard.GOATEE: 0.92}


def blend(picture: Picture, colour: Sequence[float] | Picture, mask: Plane) -> Picture:
    """Return a picture with a colour, or another picture, where the mask is 1."""
    mask = np.clip(mask, 0, 1)[..., None]
    return picture + (np.asarray(colour, np.float32) - picture) * mask


def darken(picture: Picture, mask: Plane) -> Picture:
    """Return a picture that is darker by the share that the mask says."""
    return picture * (1 - mask[..., None])


def tint(colour: Sequence[float], *factors: float) -> Picture:
    """Return a colour times one factor, or one per channel."""
    return np.asarray(colour, np.float32) * np.asarray(factors, np.float32)


def colour_face(face: Features, x: Plane, y: Plane, smile: float) -> Picture:
    """Return the colours of a face from the front, without light or hair."""
    picture = _colour_skin(face, x, y)
    picture = _colour_beard(face, picture, x, y, smile)
    picture = _colour_lips(face, picture, x, y, smile)
    picture = _colour_nostrils(face, picture, abs(x), y)
    picture = _colour_brows(face, picture, abs(x), y)
    return colour_glasses(face, _colour_eyes(face, picture, x, y), abs(x), y)


def _colour_skin(face: Features, x: Plane, y: Plane) -> Picture:
    aside, eyes = abs(x), face.eyes
    mottling = 1 + 0.02 * make_noise(face.texture, 9, x.shape) + 0.01 * make_noise(face.texture + 1, 1.2, x.shape)
    picture: Picture = np.asarray(face.skin, np.float32) * mottling[..., None]
    red = 0.8 * ring_bell(aside, y, (eyes.gap * 1.25, eyes.height + 0.3), (0.15, 0.12))
    red += ring_bell(x, y, (0, face.nose_y - 0.04), (0.1, 0.07))
    picture *= 1 - 0.22 * face.ruddy * red[..., None] * np.array([0.15, 0.9, 0.8], np.float32)
    below_eyes = ring_bell(aside, y, (eyes.gap * 0.95, eyes.height + 0.1), (eyes.width, 0.045))
    picture = darken(picture, 0.18 * (0.4 + face.age) * below_eyes)
    spots = fade_in(make_noise(face.texture + 2, 1.6, x.shape) - 1.7, 0.5)
    spots = spots * ring_bell(x, y, (0, eyes.height + 0.25), (0.4, 0.15))
    return blend(picture, tint(face.skin, 0.7, 0.52, 0.42), face.freckles * spots)


def _colour_beard(face: Features, picture: Picture, x: Plane, y: Plane, smile: float) -> Picture:
    if face.beard is Beard.NONE:
        return picture
    aside, middle = abs(x), face.mouth_y
    _, width = trace_mouth(face, x, smile)
    below = fade_in(y - (middle - 0.28) - 0.55 * np.clip(face.width * 0.72 - aside, 0, 0.3), 0.1)
    bare = ring_bell(x, y, (0, middle), (width * 0.75, face.mouth.lower + 0.02))
    below *= np.clip(1.25 - 1.5 * bare, 0, 1)
    lip = y - (middle - 0.095 + 0.05 * (aside / width) ** 2)
    lip = np.exp(-((lip / 0.038) ** 4)) * (1 - fade_in(aside - width * 1.05, 0.05))
    tuft = fade_in(1 - (x / (width * 0.85)) ** 2 - ((y - 0.93) / 0.2) ** 2, 0.3)
    mask = {Beard.MOUSTACHE: lip, Beard.GOATEE: np.maximum(lip, tuft)}.get(face.beard, np.maximum(below, lip))
    hairs = 0.75 + 0.25 * make_noise(face.texture + 3, (2.2, 0.8), x.shape)
    return blend(picture, face.hair, BEARD_COVER[face.beard] * mask * hairs)


def _colour_lips(face: Features, picture: Picture, x: Plane, y: Plane, smile: float) -> Picture:
    line, width = trace_mouth(face, x, smile)
    mouth, share = face.mouth, np.clip(1 - (x / width) ** 2, 0, 1)
    top = line - 1.35 * mouth.upper * share**0.8 * (1 - 0.25 * draw_ridge(x, 0.035))
    bottom = line + 1.25 * mouth.lower * share**0.7
    mask = fade_in(y - top) * fade_in(bottom - y) * fade_in(width - abs(x), 0.03)
    colour = tint(face.skin, 0.85, 0.55, 0.55) * (1 - 0.3 * mouth.colour) + tint((0.08, 0, 0), mouth.colour)
    picture = blend(picture, colour, mask * (0.45 + 0.5 * mouth.colour))
    between = draw_ridge(y - line, 0.011) * fade_in(width * 1.03 - abs(x), 0.03)
    return blend(picture, tint(face.skin, 0.3, 0.16, 0.14), 0.85 * between)


def _colour_nostrils(face: Features, picture: Picture, aside: Plane, y: Plane) -> Picture:
    width, base = face.nose.width, face.nose_y
    holes = ring_bell(aside, y, (width * 0.5, base + 0.012), (width * 0.22, 0.016))
    picture = blend(picture, tint(face.skin, 0.18), np.clip(1.3 * holes, 0, 0.9))
    return darken(picture, 0.3 * ring_bell(aside, y, (width * 1.05, base - 0.02), (0.014, 0.045)))


def _colour_brows(face: Features, picture: Picture, aside: Plane, y: Plane) -> Picture:
    brows, eyes = face.brows, face.eyes
    along = (aside - eyes.gap) / (eyes.width * 1.5)
    height = eyes.height - brows.distance - brows.arch * (1 - along**2) - brows.tilt * (aside - eyes.gap)
    thickness = brows.thickness * np.clip(1.1 - 0.55 * np.clip(along, -1, 1), 0.2, 2)
    mask = fade_in(thickness - abs(y - height), 0.02) * fade_in(1 - abs(along), 0.25)
    hairs = 0.75 + 0.25 * make_noise(face.texture + 4, (0.8, 2.0), aside.shape)
    return blend(picture, tint(face.hair, 0.8), np.clip(mask * hairs, 0, 0.95))


def _colour_eyes(face: Features, picture: Picture, x: Plane, y: Plane) -> Picture:
    eyes = face.eyes
    right, down = abs(x) - eyes.gap, y - eyes.height
    along = (right * np.cos(eyes.tilt) - down * np.sin(eyes.tilt)) / eyes.width
    across = right * np.sin(eyes.tilt) + down * np.cos(eyes.tilt)
    inside, ends = np.clip(1 - along**2, 0, 1), 1 - abs(along)
    upper, lower = -1.15 * eyes.opening * inside**0.75, 0.8 * eyes.opening * inside
    almond = fade_in(across - upper) * fade_in(lower - across) * fade_in(ends, 0.05)
    picture = darken(picture, 0.35 * draw_ridge(across - upper + 0.035, 0.01) * fade_in(ends + 0.05, 0.2))
    white = np.array([0.93, 0.91, 0.89], np.float32) * (1 - 0.25 * np.clip(abs(along), 0, 1))[..., None]
    picture = blend(picture, white, almond)
    radius, distance = eyes.opening * 1.02, np.hypot(right, down + 0.004)
    iris = fade_in(radius - distance) * almond
    picture = blend(picture, eyes.iris, iris)
    picture = blend(picture, tint(eyes.iris, 0.35), iris * draw_ridge(distance - radius, 0.012))
    picture = blend(picture, (0.02, 0.02, 0.02), fade_in(0.45 * radius - distance) * almond)
    picture = darken(picture, 0.45 * almond * np.clip(1 - (across - upper) / 0.035, 0, 1))
    picture = blend(picture, (0.06, 0.04, 0.03), 0.9 * draw_ridge(across - upper, 0.011) * fade_in(ends + 0.03, 0.08))
    picture = blend(picture, tint(face.skin, 0.5), 0.6 * draw_ridge(across - lower, 0.008) * fade_in(ends, 0.1))
    glint = draw_ridge(np.hypot(x - np.sign(x) * eyes.gap + 0.015, down + 0.018), 0.011)
    return blend(picture, (1.0, 1.0, 1.0), 0.9 * glint * almond)


def colour_glasses(face: Features, picture: Picture, aside: Plane, y: Plane) -> Picture:
    """Return the picture with the frame of the glasses, if there are any."""
    if face.glasses is Glasses.NONE:
        return picture
    gap, down = face.eyes.gap, y - face.eyes.height
    power, height = (2, 0.2) if face.glasses is Glasses.ROUND else (5, 0.155)
    lens = abs((aside - gap * 1.04) / (gap * 0.8)) ** power + abs((down - 0.03) / height) ** power
    frame = np.exp(-(((lens ** (1 / power) - 1) / 0.07) ** 4))
    bridge = fade_in(gap * 0.26 - aside, 0.02) * np.exp(-(((down + 0.02) / 0.016) ** 4))
    temples = fade_in(aside - gap * 1.82, 0.02) * np.exp(-((down / 0.02) ** 4))
    return blend(picture, (0.08, 0.07, 0.07), 0.95 * np.clip(frame + bridge + temples, 0, 1))
