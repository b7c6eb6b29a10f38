"""Decode, detect, align, embed: the one object services hold."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vultus.domain import (
    Analysis,
    Box,
    Calibration,
    Contract,
    DescribedFace,
    DetectedFace,
    Embedding,
    Pixels,
    QualityRule,
)
from vultus.errors import WeightsError
from vultus.models.alignment import align
from vultus.models.budget import PixelBudget
from vultus.models.catalog.packs import BUILTIN, Pack, pack_named
from vultus.models.decoding import Photo, Picture
from vultus.models.geometry import scale_of, similarity_transform
from vultus.models.loading import load_pack
from vultus.models.quality import measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.models.detection import Detector
    from vultus.models.embedding import Embedder
    from vultus.models.store import WeightsStore
    from vultus.settings import InferenceSettings, PhotoSettings

TOLERATED_ENLARGEMENT = 0.8
"""Share of a crop's resolution that suffices; decoding a photo again for the rest would not pay."""


class FacePipeline:
    """The networks of one pack, ready to describe photos; safe to use from several threads at once."""

    def __init__(
        self,
        pack: Pack,
        detector: Detector,
        embedder: Embedder,
        *,
        inference: InferenceSettings,
        photos: PhotoSettings,
    ) -> None:
        self.pack = pack
        self.contract: Contract = pack.contract
        self._template = pack.template
        self._detector = detector
        self._embedder = embedder
        self._inference = inference
        self._photos = photos
        self._budget = PixelBudget(photos.pixel_budget)

    @classmethod
    def load(
        cls,
        inference: InferenceSettings,
        photos: PhotoSettings,
        store: WeightsStore,
        *,
        pack: str | None = None,
        calibrated: bool = True,
    ) -> FacePipeline:
        """Verify the weights, build or find the graphs and load the networks; blocks for about a second.

        Args:
            inference: How the networks run, and the pack unless one is given.
            photos: Limits on photos.
            store: Where weights and graphs lie, and what was decided about them.
            pack: Another pack than the default one.
            calibrated: Whether thresholds are needed; without them nothing can be decided, only measured.

        Raises:
            NotFoundError: There is no such pack.
            LicenceError: A licence forbids the use, or was not accepted.
            WeightsError: A file is missing or not the published one, or nobody measured the pack's thresholds.
        """
        # Workers are the parallelism; OpenCV's own threads would only compete with them.
        cv2.setNumThreads(1)
        chosen = pack_named(pack or default_pack(inference, store))
        detector, embedder, chosen = load_pack(chosen, store)
        made = cls(chosen, detector, embedder, inference=inference, photos=photos)
        if calibrated:
            _ = made.calibration
        return made

    @property
    def calibration(self) -> Calibration:
        """Thresholds of the vector space.

        Raises:
            WeightsError: Nobody has measured them.
        """
        if self.pack.calibration is None:
            raise WeightsError(
                f"Nobody has measured the thresholds of pack '{self.pack.name}' (contract {self.contract.id}). Measure "
                f"and keep them: vultus evaluate pairs DIR --pack {self.pack.name} --keep"
            )
        return self.pack.calibration

    @property
    def enrol_rule(self) -> QualityRule:
        """What a photo should reach to be enrolled."""
        return self.pack.enrol_rule

    @property
    def recognize_rule(self) -> QualityRule:
        """What a face should reach to be recognised."""
        return self.pack.recognize_rule

    def describe(self, photo: bytes, *, embed: bool = True) -> Analysis:
        """Return every face of a photo, left to right; blocks.

        Args:
            photo: A JPEG, PNG or WebP file.
            embed: Whether vectors are wanted.

        Raises:
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: More bytes or pixels than the limits.
        """
        clock = _Clock()
        opened = Photo.open(photo, self._photos)
        side = self._inference.max_side_px
        with self._budget.hold(opened.weight(side)):
            with clock.stage("decode"):
                picture = opened.decode(side)
            with clock.stage("detect"):
                found = self._detect(picture)
            closer = self._side_for_crops(found, max(picture.width, picture.height))
            sharp = opened.divisor(closer) >= opened.divisor(side)
            if sharp:
                chips, faces = self._align(picture, found, clock)
        if not sharp:
            # Outside the first hold: photos waiting for more room while holding some could wait for each other.
            del picture
            with self._budget.hold(opened.weight(closer)):
                with clock.stage("decode"):
                    picture = opened.decode(closer)
                chips, faces = self._align(picture, found, clock)
        if embed:
            with clock.stage("embed"):
                vectors = self._embedder.embed(chips)
            faces = [
                replace(face, embedding=Embedding(vector, self.contract.id))
                for face, vector in zip(faces, vectors, strict=True)
            ]
        return Analysis(picture.width, picture.height, hashlib.sha256(photo).hexdigest(), tuple(faces), clock.taken_ms)

    def _detect(self, picture: Picture) -> list[DetectedFace]:
        """Return the faces, left to right, in pixels of the original photo."""
        # The detector shrinks what it searches itself: its cost follows the smallest face wanted, not the pixels.
        height, width = picture.pixels.shape[:2]
        shrunk = max(1.0, max(height, width) / self._inference.max_side_px)
        found = self._detector.detect(picture.pixels, self._inference.min_face_px * shrunk)
        factor = np.array([picture.width / width, picture.height / height])
        return sorted((_scaled(face, factor) for face in found), key=lambda face: face.box.left)

    def _side_for_crops(self, found: list[DetectedFace], longer_side: int) -> int:
        """Return the longer side a photo must be decoded at so that no crop is enlarged much.

        The detector sees small faces well enough on a shrunk photo, the embedder does not.

        Args:
            found: Faces in pixels of the original photo.
            longer_side: Of the original photo, pixels.
        """
        template = self._template.array
        enlarged = [scale_of(similarity_transform(face.landmarks, template)) for face in found]
        return math.ceil(longer_side * min(1.0, TOLERATED_ENLARGEMENT * max(enlarged, default=0.0)))

    def _align(self, picture: Picture, found: list[DetectedFace], clock: _Clock) -> tuple[Pixels, list[DescribedFace]]:
        """Return the crops, (n, side, side, 3), and the faces with their quality."""
        template = self._template
        factor = np.array([picture.pixels.shape[1] / picture.width, picture.pixels.shape[0] / picture.height])
        chips = np.empty((len(found), template.side, template.side, 3), np.uint8)
        faces = []
        with clock.stage("align"):
            for chip, face in zip(chips, found, strict=True):
                chip[:] = align(picture.pixels, (face.landmarks * factor).astype(np.float32), template)
                faces.append(DescribedFace(face, measure(face, chip, template.array), None))
        return chips, faces


class _Clock:
    """Measures stages."""

    def __init__(self) -> None:
        self.taken_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.taken_ms[name] = self.taken_ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3


def _scaled(face: DetectedFace, factor: np.ndarray) -> DetectedFace:
    """Return a face in another image's pixels: x and y times a factor each."""
    x, y = map(float, factor)
    box = Box(face.box.left * x, face.box.top * y, face.box.right * x, face.box.bottom * y)
    return replace(face, box=box, landmarks=(face.landmarks * factor).astype(np.float32))


def default_pack(inference: InferenceSettings, store: WeightsStore) -> str:
    """Return the pack of new collections: the setting, else what `vultus models use` chose, else the built-in one."""
    return inference.pack or store.records.chosen_pack() or BUILTIN.name
