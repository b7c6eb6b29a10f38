"""The crops of one face whose vectors are averaged: what differs between them is noise, not the face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.models.imaging.alignment import Template, align
from vultus.models.imaging.geometry import inverse, similarity_transform, transform

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels
    from vultus.models.detection.dlib_landmarks import DlibLandmarks


class Views(Protocol):
    """Cuts the crops an embedder is shown."""

    @property
    def steps(self) -> tuple[str, str]:
        """Words of a contract: what is found beside the detector's landmarks, and how vectors are averaged."""
        ...

    def cut(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return (n, views, side, side, 3) crops of the faces of a photo.

        Args:
            pixels: (height, width, 3) uint8, the photo.
            landmarks: (n, 5, 2) in its pixels.
            chips: (n, side, side, 3) the crops by these landmarks.
        """
        ...


class Mirrored:
    """A crop and its mirror image: a face is nearly symmetric, the noise of alignment and lighting is not."""

    steps = ("", "mirror average")

    def cut(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return both."""
        del pixels, landmarks
        return np.stack([chips, chips[:, :, ::-1]], axis=1)


class SecondOpinion:
    """The mirrored crop, and another by landmarks that dlib's own predictor finds in the first.

    The errors of the two are independent, so that the average of both vectors has less of them than a crop and its
    mirror image have, for the same two passes of the network.

    Args:
        finder: Finds the other landmarks.
        name: Of the finder with its weights and where it looks, in words.
        first: Where the detector's landmarks belong.
        second: Where the finder's landmarks belong.
    """

    def __init__(self, finder: DlibLandmarks, name: str, first: Template, second: Template) -> None:
        self._finder = finder
        self._first = first
        self._second = second
        self.steps = (f"{name}; {second.words}", "average of the first crop mirrored and the second")

    def cut(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return both."""
        views = np.stack([chips[:, :, ::-1]] * 2, axis=1)
        for at, found in enumerate(self._finder.find(chips)):
            back = inverse(similarity_transform(landmarks[at], self._first.array))
            views[at, 1] = align(pixels, transform(found, back).astype(np.float32), self._second)
        return views
