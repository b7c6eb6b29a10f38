"""Portraits of people who do not exist, computed: a relief of a face, coloured, turned and lit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from vultus.demo.complexion import blend, colour_face, tint
from vultus.demo.features import Colour, HairStyle
from vultus.demo.relief import compute_depth, fade_in, make_noise, outline_head, ring_bell, shape_face

if TYPE_CHECKING:
    from vultus.demo.complexion import Picture
    from vultus.demo.features import Features
    from vultus.demo.relief import Plane
    from vultus.domain import Pixels

SIDE = 320
"""Of a portrait, pixels."""

HEAD_X, HEAD_Y, HEAD_PX = 0.5, 0.427, 0.3125
"""Middle of the head and half of its height, in shares of the side."""

TURNING_STEP, TURNINGS = 4, 5
"""Pixels of the grid on which a turned head is computed, and steps of the fixed-point iteration."""


@dataclass(frozen=True, slots=True)
class View:
    """How somebody is seen.

    Attributes:
        yaw: Of the head, radians; positive to the picture's right.
        pitch: Of the head, radians; positive down.
        smile: 0..1.
        light: Where it comes from, right and down, in shares of its distance before the face.
        ambient: Light from everywhere, 0..1.
        background: Colour behind the person.
        noise: Of the camera, grey levels.
        seed: Of that noise.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    smile: float = 0.2
    light: tuple[float, float] = (-0.35, -0.6)
    ambient: float = 0.5
    background: Colour = (0.72, 0.75, 0.78)
    noise: float = 2.0
    seed: int = 0


def draw_portrait(face: Features, view: View, *, side: int = SIDE) -> Pixels:
    """Return a portrait, (side, side, 3)."""
    picture, figure = draw_figure(face, view, side=side)
    shade = np.linspace(1.05, 0.93, side, dtype=np.float32)[:, None, None]
    picture = blend(shade * np.asarray(view.background, np.float32), picture, figure)
    grain = np.random.default_rng(view.seed).standard_normal((side, side, 1), np.float32)
    return np.clip(picture * 255 + view.noise * grain, 0, 255).astype(np.uint8)


def draw_figure(face: Features, view: View, *, side: int = SIDE) -> tuple[Picture, Plane]:
    """Return somebody from the shoulders on, (side, side, 3), and how much of each pixel is theirs, 0..1."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    x, y = (columns / side - HEAD_X) / HEAD_PX, (rows / side - HEAD_Y) / HEAD_PX
    hair = _colour_hair(face, x, y, view)
    picture, figure = _draw_body(face, hair, x, y)
    part = _find_head(side)
    head, mask = _draw_head(face, hair[part], x[part], y[part], view)
    picture[part], figure[part] = blend(picture[part], head, mask), np.maximum(figure[part], mask)
    return ndimage.gaussian_filter(picture, (0.6, 0.6, 0)), figure


def _find_head(side: int) -> tuple[slice, slice]:
    """Return the rows and columns in which the head is, in whole steps of the turning."""
    rows, columns = (
        slice(
            int(max(0.0, middle - 1.1 * HEAD_PX) * side) // TURNING_STEP * TURNING_STEP,
            int((middle + 1.1 * HEAD_PX) * side) // TURNING_STEP * TURNING_STEP,
        )
        for middle in (HEAD_Y, HEAD_X)
    )
    return rows, columns


def _draw_head(face: Features, hair: Picture, x: Plane, y: Plane, view: View) -> tuple[Picture, Plane]:
    """Return the head, and how much of each pixel is its."""
    face_x, face_y = _turn_back(face, x, y, view)
    mask = fade_in(outline_head(face, face_y) - abs(face_x), 0.02) * fade_in(1 - abs(face_y), 0.02)
    light, gloss = _light_face(face, face_x, face_y, view, 1 / float(x[0, 1] - x[0, 0]))
    skin = colour_face(face, face_x, face_y, view.smile) * light[..., None] + gloss[..., None]
    return blend(skin, hair, _mask_front_hair(face, face_x, face_y)), mask


def _turn_back(face: Features, x: Plane, y: Plane, view: View) -> tuple[Plane, Plane]:
    """Return which point of the face, seen from the front, is at each pixel."""
    if not (view.yaw or view.pitch):
        return x, y
    coarse_x, coarse_y = x[::TURNING_STEP, ::TURNING_STEP], y[::TURNING_STEP, ::TURNING_STEP]
    turned_x, turned_y = coarse_x, coarse_y
    for _ in range(TURNINGS):
        depth = compute_depth(face, turned_x, turned_y)
        turned_x = (coarse_x - depth * np.sin(view.yaw)) / np.cos(view.yaw)
        turned_y = (coarse_y - depth * np.sin(view.pitch)) / np.cos(view.pitch)
    moved_x, moved_y = (
        ndimage.zoom(turned - coarse, TURNING_STEP, order=1, grid_mode=True, mode="nearest")
        for turned, coarse in ((turned_x, coarse_x), (turned_y, coarse_y))
    )
    return x + moved_x, y + moved_y


def _compute_normals(z: Plane, unit: float) -> Plane:
    """Return (3, height, width): right, down, and to the viewer."""
    down, right = np.gradient(z * np.float32(unit))
    normals = np.stack([-right, -down, np.ones_like(z)])
    result: Plane = normals / np.linalg.norm(normals, axis=0)
    return result


def _point_light(view: View) -> Plane:
    light = np.array([*view.light, 1], np.float32)
    result: Plane = light / np.linalg.norm(light)
    return result


def _light_face(face: Features, x: Plane, y: Plane, view: View, unit: float) -> tuple[Plane, Plane]:
    """Return the factor by which light falls on the skin, and the gloss that is added; `unit` in pixels."""
    shape, light = shape_face(face, x, y, view.smile), _point_light(view)
    z = ndimage.gaussian_filter(shape, unit / 125)
    falling = np.tensordot(light, _compute_normals(z, unit), 1)
    hidden = np.clip(4 * (ndimage.gaussian_filter(z, unit / 19) - z), 0, 0.45)
    diffuse = (view.ambient + (1.12 - view.ambient) * np.clip((falling + 0.25) / 1.25, 0, 1)) * (1 - hidden)
    half_way = light + np.array([0, 0, 1], np.float32)
    normals = _compute_normals(ndimage.gaussian_filter(shape, unit / 60), unit)
    shine = np.clip(np.tensordot(half_way / np.linalg.norm(half_way), normals, 1), 0, 1) ** 22
    return diffuse, (0.16 - 0.06 * face.age) * shine


def _colour_hair(face: Features, x: Plane, y: Plane, view: View) -> Picture:
    """Return the colour of hair everywhere: strands on a dome, with a curtain below it, in the light."""
    width = face.width + face.volume + 0.15
    dome = np.sqrt(np.clip(1 - (x / width) ** 2 - (np.minimum(y + 0.1, 0) / 1.3) ** 2, 0.05, 1))
    normals = _compute_normals(0.8 * dome, HEAD_PX * len(x))
    falling = np.clip(np.tensordot(_point_light(view), normals, 1), 0, 1)
    strands = 1 + 0.14 * make_noise(face.texture + 5, (6, 0.9), x.shape)
    lit = (view.ambient + (1.1 - view.ambient) * falling) * strands
    return np.asarray(face.hair, np.float32) * lit[..., None]


def _mask_front_hair(face: Features, x: Plane, y: Plane) -> Plane:
    """Return where hair covers the head, 0..1."""
    aside, line, style = abs(x), -face.hairline, face.style
    if style is HairStyle.BALD:
        return np.zeros_like(x)
    if style is HairStyle.RECEDING:
        edge = line - 0.12 + 0.55 * (aside / face.width) ** 4 - 0.28 * np.exp(-(((aside - 0.36) / 0.16) ** 2))
    elif style is HairStyle.PARTED:
        edge = line - 0.08 + 0.35 * np.clip((x + 0.25) / face.width, -1, 1) ** 2
    elif style is HairStyle.FRINGE:
        edge = face.eyes.height - face.brows.distance - 0.1 + 0.03 * np.sin(9 * x) + 0.2 * (aside / face.width) ** 6
    else:
        edge = line + 0.35 * (aside / face.width) ** 4
    end = 0.35 if style in {HairStyle.LONG, HairStyle.FRINGE} else 0.05
    temples = fade_in(aside - outline_head(face, y) * 0.93, 0.04) * fade_in(end - y, 0.05)
    edge = edge + 0.015 * make_noise(face.texture + 6, (6, 1.2), x.shape)
    return np.maximum(fade_in(edge - y, 0.05), temples)


def _mask_back_hair(face: Features, x: Plane, y: Plane) -> Plane:
    """Return where hair shows behind the head, 0..1."""
    aside, style = abs(x), face.style
    if style is HairStyle.BALD:
        return np.zeros_like(x)
    width, height = face.width + face.volume, 0.9 + face.volume
    skull = fade_in(1 - (aside / width) ** 2.3 - (abs(y + 0.1) / height) ** 2.3, 0.05)
    if style is HairStyle.LONG:
        mane = fade_in(width + 0.06 * np.clip(y, 0, 1.3) ** 2 - aside, 0.03)
        return np.maximum(skull, mane * fade_in(y + 0.2, 0.1) * fade_in(1.2 + 0.1 * np.cos(3 * x) - y, 0.12))
    skull *= fade_in((0.6 if style is HairStyle.FRINGE else 0.15) - y, 0.15)
    if style is HairStyle.TIED:
        return np.maximum(skull, fade_in(0.26 - np.hypot(x - 0.08, (y + 1.08) * 1.1), 0.03))
    return skull


def _draw_body(face: Features, hair: Picture, x: Plane, y: Plane) -> tuple[Picture, Plane]:
    """Return what is behind the face, hair, ears, neck and shoulders, and how much of each pixel it covers."""
    aside, eyes = abs(x), face.eyes
    back = _mask_back_hair(face, x, y)
    picture = 0.85 * hair
    width = face.width * 0.62
    neck = fade_in(width + 0.08 * np.clip(y - 1.1, 0, 1) - aside, 0.02) * fade_in(y - 0.5, 0.02)
    shade = (0.9 - 0.35 * (aside / width) ** 2) * (0.62 + 0.3 * np.clip((y - 0.95) / 0.5, 0, 1))
    picture = blend(picture, np.asarray(face.skin, np.float32) * shade[..., None], neck)
    ear = fade_in(1 - ((aside - face.width * 0.99) / 0.09) ** 2 - ((y - eyes.height - 0.13) / 0.19) ** 2, 0.1)
    if face.style in {HairStyle.LONG, HairStyle.FRINGE}:
        ear = np.zeros_like(ear)
    hollow = 0.82 - 0.3 * ring_bell(aside, y, (face.width, eyes.height + 0.13), (0.03, 0.09))
    picture = blend(picture, np.asarray(face.skin, np.float32) * hollow[..., None], ear)
    collar = 1.28 + 0.42 * (aside / 1.35) ** 2.2 + 0.16 * np.exp(-((aside / 0.35) ** 2) / 2)
    body = fade_in(y - collar, 0.02)
    weave = 1 - 0.3 * (aside / 1.6) ** 2 + 0.015 * make_noise(face.texture + 7, 2, x.shape)
    rim = 0.75 * fade_in(y - collar - 0.05, 0.03) + 0.25
    picture = blend(picture, tint(face.clothes, 1) * (weave * (0.7 + 0.3 * rim))[..., None], body)
    return picture, np.maximum.reduce([back, neck, ear, body])
