"""What tells one drawn face from another: proportions, colours, hair, beard and glasses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

Colour = tuple[float, float, float]
"""Red, green and blue, 0..1."""

SKINS: tuple[Colour, ...] = (
    (0.96, 0.82, 0.74),
    (0.93, 0.76, 0.64),
    (0.87, 0.68, 0.53),
    (0.76, 0.56, 0.40),
    (0.58, 0.40, 0.28),
    (0.42, 0.28, 0.20),
    (0.30, 0.20, 0.15),
)
"""From light to dark."""

DARK_TONE = 2.5
"""Position in `SKINS` from which hair and eyes are dark."""

HAIRS: tuple[Colour, ...] = (
    (0.07, 0.06, 0.06),
    (0.14, 0.09, 0.06),
    (0.30, 0.18, 0.10),
    (0.48, 0.22, 0.10),
    (0.70, 0.54, 0.33),
)
GREYS: tuple[Colour, ...] = ((0.55, 0.54, 0.53), (0.80, 0.79, 0.77))
IRISES: tuple[Colour, ...] = ((0.16, 0.09, 0.05), (0.30, 0.20, 0.10), (0.35, 0.50, 0.62), (0.38, 0.45, 0.30))
CLOTHES: tuple[Colour, ...] = (
    (0.18, 0.30, 0.48),
    (0.55, 0.20, 0.22),
    (0.22, 0.42, 0.33),
    (0.75, 0.60, 0.25),
    (0.36, 0.28, 0.46),
    (0.30, 0.33, 0.37),
)


class HairStyle(StrEnum):
    """How the hair is worn."""

    SHORT = "short"
    PARTED = "parted"
    FRINGE = "fringe"
    LONG = "long"
    RECEDING = "receding"
    BALD = "bald"
    TIED = "tied"


class Beard(StrEnum):
    """What of the beard is left."""

    NONE = "none"
    STUBBLE = "stubble"
    FULL = "full"
    MOUSTACHE = "moustache"
    GOATEE = "goatee"


class Glasses(StrEnum):
    """Shape of the glasses."""

    NONE = "none"
    ROUND = "round"
    SQUARE = "square"


@dataclass(frozen=True, slots=True)
class Eyes:
    """Both eyes.

    Attributes:
        gap: Half of their distance.
        height: Below the middle of the head.
        width: Half of one's.
        opening: Of the lids.
        tilt: Radians.
        depth: How deep they lie.
        iris: Colour.
    """

    gap: float
    height: float
    width: float
    opening: float
    tilt: float
    depth: float
    iris: Colour


@dataclass(frozen=True, slots=True)
class Brows:
    """Both brows: distance above the eyes, thickness, arch, and tilt in radians."""

    distance: float
    thickness: float
    arch: float
    tilt: float


@dataclass(frozen=True, slots=True)
class Nose:
    """Length from the eyes, half of its width, and how far bridge and tip stand out."""

    length: float
    width: float
    bridge: float
    tip: float


@dataclass(frozen=True, slots=True)
class Mouth:
    """Distance below the nose, half of its width, thickness of the lips, and how red they are, 0..1."""

    distance: float
    width: float
    upper: float
    lower: float
    colour: float


@dataclass(frozen=True, slots=True)
class Features:
    """A face that is no person's. Lengths are in halves of the head's height, y points down.

    Attributes:
        width: Half of the head's.
        jaw: From pointed, 1.7, to square, 4.
        chin: How far it stands out.
        cheeks: How far they do.
        skin: Colour.
        ruddy: Redness of cheeks and nose, 0..1.
        age: Depth of its lines, 0..1.
        freckles: 0..1.
        hair: Colour.
        hairline: Its height above the middle of the head.
        volume: Thickness of the hair.
        texture: Seed of what is irregular in skin and hair.
    """

    width: float
    jaw: float
    chin: float
    cheeks: float
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    skin: Colour
    ruddy: float
    age: float
    freckles: float
    hair: Colour
    hairline: float
    volume: float
    style: HairStyle
    beard: Beard
    glasses: Glasses
    clothes: Colour
    texture: int

    @property
    def nose_y(self) -> float:
        """Height of the base of the nose."""
        return self.eyes.height + self.nose.length

    @property
    def mouth_y(self) -> float:
        """Height of the mouth."""
        return self.nose_y + self.mouth.distance


def invent_features(seed: int) -> Features:
    """Return the features of somebody invented: a seed is one face."""
    chance = np.random.default_rng(seed)

    def draw(low: float, high: float) -> float:
        return float(chance.uniform(low, high))

    tone, age, is_man = draw(0, len(SKINS) - 1.001), draw(0, 1) ** 1.5, chance.random() < 0.5
    tones = 2 if tone > DARK_TONE else None  # of hair and eyes: of dark skins only the dark ones
    is_grey = draw(0, 1) < age - 0.25
    styles = (
        (HairStyle.SHORT, HairStyle.PARTED, HairStyle.RECEDING, HairStyle.BALD, HairStyle.SHORT)
        if is_man
        else (HairStyle.LONG, HairStyle.FRINGE, HairStyle.TIED, HairStyle.PARTED, HairStyle.LONG)
    )
    return Features(
        width=draw(0.6, 0.9),
        jaw=draw(1.9, 4.8) if is_man else draw(1.5, 3.2),
        chin=draw(0, 0.16),
        cheeks=draw(0, 0.14),
        eyes=Eyes(
            draw(0.23, 0.37),
            draw(-0.14, 0.11),
            draw(0.1, 0.18),
            draw(0.028, 0.085),
            draw(-0.2, 0.32),
            draw(0.01, 0.18),
            IRISES[chance.integers(len(IRISES[:tones]))],
        ),
        brows=Brows(
            draw(0.1, 0.23), draw(0.02, 0.065) if is_man else draw(0.012, 0.04), draw(0, 0.085), draw(-0.25, 0.2)
        ),
        nose=Nose(draw(0.26, 0.54), draw(0.055, 0.19), draw(0.04, 0.25), draw(0.08, 0.29)),
        mouth=Mouth(
            draw(0.13, 0.27),
            draw(0.13, 0.32),
            draw(0.012, 0.075),
            draw(0.018, 0.09),
            draw(0.1, 0.5) if is_man else draw(0.3, 0.9),
        ),
        skin=_mix_colours(SKINS[int(tone)], SKINS[int(tone) + 1], tone % 1),
        ruddy=draw(0.1, 0.9),
        age=age,
        freckles=draw(0, 1) ** 3,
        hair=GREYS[chance.integers(len(GREYS))] if is_grey else HAIRS[chance.integers(len(HAIRS[:tones]))],
        hairline=draw(0.38, 0.78),
        volume=draw(0.06, 0.2),
        style=styles[chance.integers(len(styles))],
        beard=list(Beard)[chance.integers(len(Beard))] if is_man else Beard.NONE,
        glasses=(Glasses.NONE, Glasses.NONE, Glasses.ROUND, Glasses.SQUARE)[chance.integers(4)],
        clothes=CLOTHES[chance.integers(len(CLOTHES))],
        texture=int(chance.integers(2**31)),
    )


def _mix_colours(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (a * (1 - share) + b * share for a, b in zip(one, other, strict=True))
    return red, green, blue
