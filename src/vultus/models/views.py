"""Views of one face whose vectors are averaged (test-time augmentation): they differ in noise, not in the face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.models.imaging.alignment import AlignmentTemplate, align_face
from vultus.models.imaging.geometry import estimate_similarity_transform, invert_transform, transform_points

if TYPE_CHECKING:
    from vultus.domain import FloatArray, Pixels
    from vultus.models.detection.dlib_landmarks import DlibLandmarkPredictor


class ViewCropper(Protocol):
    """Crops the views of a face that the embedder averages (test-time augmentation)."""

    @property
    def descriptions(self) -> tuple[str, str]:
        """Part of the space's id: landmarks found besides the detector's, and how vectors are averaged."""
        ...

    def crop_views(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return (n, views, side, side, 3) crops of the faces of a photo.

        Args:
            pixels: (height, width, 3) uint8, the photo.
            landmarks: (n, 5, 2) in its pixels, x then y.
            chips: (n, side, side, 3) the crops aligned by these landmarks.
        """
        ...


class PlainCropper:
    """The crop alone."""

    descriptions = ("", "")

    def crop_views(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return every crop."""
        del pixels, landmarks
        return chips[:, None]


class MirrorCropper:
    """A crop and its mirror image: a face is nearly symmetric, the noise of alignment and lighting is not."""

    descriptions = ("", "mirror average")

    def crop_views(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return every crop and its mirror image."""
        del pixels, landmarks
        return np.stack([chips, chips[:, :, ::-1]], axis=1)


class RealignedCropper:
    """The mirrored crop and one realigned with dlib's landmarks, which are predicted in the first crop.

    The alignment errors of the two are independent, so averaging their vectors reduces the error more than averaging a
    crop and its mirror image, for the same two network passes.

    Args:
        predictor: Predicts dlib's landmarks.
        name: Of the predictor, with its weights and the square it assumes.
        template: Target positions of the detector's landmarks.
        predictor_template: Target positions of the predictor's landmarks.
    """

    def __init__(
        self,
        predictor: DlibLandmarkPredictor,
        name: str,
        template: AlignmentTemplate,
        predictor_template: AlignmentTemplate,
    ) -> None:
        self._predictor = predictor
        self._template = template
        self._predictor_template = predictor_template
        self.descriptions = (
            f"{name}; {predictor_template.description}",
            "average of the first crop mirrored and the second",
        )

    def crop_views(self, pixels: Pixels, landmarks: FloatArray, chips: Pixels) -> Pixels:
        """Return every mirrored crop and the realigned one."""
        views = np.stack([chips[:, :, ::-1]] * 2, axis=1)
        for at, found in enumerate(self._predictor.find_landmarks(chips)):
            back = invert_transform(estimate_similarity_transform(landmarks[at], self._template.array))
            views[at, 1] = align_face(
                pixels, transform_points(found, back).astype(np.float32), self._predictor_template
            )
        return views
