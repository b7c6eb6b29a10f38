"""Decode, detect, align, embed: the one object services hold."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import (
    Analysis,
    Box,
    Calibration,
    DescribedFace,
    DetectedFace,
    Embedding,
    Pixels,
)
from vultus.errors import LivenessNotLoadedError, WeightsError
from vultus.models.catalog.measured import rules_of
from vultus.models.catalog.packs import BUILTIN, pack_named
from vultus.models.embedding.inputs import arcface_template
from vultus.models.imaging.alignment import align
from vultus.models.imaging.cropping import cut, scale_of_crop
from vultus.models.imaging.decoding import Photo, Picture
from vultus.models.imaging.geometry import scale_of, similarity_transform
from vultus.models.imaging.pixel_budget import PixelBudget
from vultus.models.loading import load_pack
from vultus.models.quality import measure
from vultus.models.runtime import limit_threads
from vultus.models.runtime.choice import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vultus.domain import FloatArray
    from vultus.models.imaging.pixel_budget import Budget
    from vultus.models.liveness import LivenessDetector
    from vultus.models.loading import LoadedPack
    from vultus.models.quality.ediffiqa import Ediffiqa
    from vultus.models.weights.store import WeightsStore
    from vultus.settings import InferenceSettings, PhotoSettings

TOLERATED_ENLARGEMENT = 0.8
"""Share of a crop's resolution that suffices; decoding a photo again for the rest would not pay."""

SCORED = arcface_template(112)
"""The crop that quality networks look at."""


NETWORKS = {"liveness", "scorer", "budget", "_views", "_detector", "_embedder"}
"""What of a pipeline stays in its process."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A photo and what is wanted of it, as for `FacePipeline.describe`."""

    photo: bytes
    embed: bool = True
    crops: bool = False
    liveness: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    """A photo whose faces were found.

    Attributes:
        analysis: All but the vectors.
        chips: (n, views, side, side, 3) for the embedder; empty where no vectors are wanted.
        embed: Whether they are.
    """

    analysis: Analysis
    chips: Pixels
    embed: bool


class FacePipeline:
    """The networks of one pack, ready to describe photos; safe to use from several threads at once."""

    def __init__(
        self, loaded: LoadedPack, *, inference: InferenceSettings, photos: PhotoSettings, calibration: Calibration
    ) -> None:
        self.pack = loaded.pack
        self.contract = loaded.contract
        self.calibration = calibration
        self.runtime = loaded.runtime
        self.liveness: LivenessDetector | None = None
        self.scorer: Ediffiqa | None = None
        self.enrol_rule, self.recognize_rule = rules_of(loaded.pack.detector.family)
        self._template = loaded.template
        self._frontal = loaded.frontal
        self._views = loaded.views
        self._detector = loaded.detector
        self._embedder = loaded.embedder
        self._inference = inference
        self._photos = photos
        self.budget: Budget = PixelBudget(photos.pixel_budget)

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
            store: Where weights come from.
            pack: Another pack than that of the settings.
            calibrated: Whether decisions will be made, which need thresholds.

        Raises:
            NotFoundError: There is no such pack.
            SetupError: The runtime asked for cannot be used here, or a network answers differently in it.
            WeightsError: A file is missing or not the published one, or nobody has measured thresholds.
            LicenceError: A licence was not accepted.
        """
        limit_threads()
        loaded = load_pack(pack_named(pack or inference.pack or default_pack(store)), store, Runtime(inference))
        if loaded.calibration is None and calibrated:
            raise WeightsError(
                f"Nobody has measured thresholds for pack '{loaded.pack.name}' (contract {loaded.contract.id}). "
                "Measure them on photos with one folder a person: "
                f"vultus evaluate pairs DIR --pack {loaded.pack.name} --keep"
            )
        calibration = loaded.calibration or Calibration((), 0.0, "not measured")
        return cls(loaded, inference=inference, photos=photos, calibration=calibration)

    def told(self) -> FacePipeline:
        """Return what another process is told of this one: what it makes, without the networks that make it."""
        told = copy.copy(self)
        for name in NETWORKS:
            vars(told).pop(name)
        return told

    def describe(self, photo: bytes, *, embed: bool = True, crops: bool = False, liveness: bool = False) -> Analysis:
        """Return every face of a photo, left to right; blocks.

        Args:
            photo: A JPEG, PNG or WebP file.
            embed: Whether vectors are wanted.
            crops: Whether a crop of every face is wanted, to be described again later.
            liveness: Whether every face is to be judged live or not.

        Raises:
            LivenessNotLoadedError: Liveness is wanted and no network judges it.
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: More bytes or pixels than the limits.
        """
        (answer,) = self.describe_all([Asked(photo, embed, crops, liveness)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def describe_all(self, asked: Sequence[Asked]) -> list[Analysis | Exception]:
        """Return what `describe` returns or raises for each of several photos; blocks.

        One photo's pixels are held at a time; the embedder runs once over the faces of all.
        """
        seen = [self._seen(one) for one in asked]
        chips = [one.chips for one in seen if isinstance(one, _Seen) and len(one.chips)]
        clock = _Clock()
        vectors = iter(())
        if chips:
            with clock.stage("embed"):
                vectors = iter(self._embedder.embed(np.concatenate(chips)))
        a_face = clock.taken_ms.get("embed", 0.0) / max(1, sum(map(len, chips)))
        return [one if isinstance(one, Exception) else self._answer(one, vectors, a_face) for one in seen]

    def _answer(self, seen: _Seen, vectors: Iterator[FloatArray], a_face_ms: float) -> Analysis:
        """Return the analysis of a photo, its faces' vectors taken from those of all."""
        faces = seen.analysis.faces
        if not seen.embed:
            return seen.analysis
        return replace(
            seen.analysis,
            faces=tuple(replace(face, embedding=Embedding(next(vectors), self.contract.id)) for face in faces),
            timings_ms=seen.analysis.timings_ms | {"embed": a_face_ms * len(faces)},
        )

    def _seen(self, asked: Asked) -> _Seen | Exception:
        try:
            return self._look(asked)
        except Exception as error:  # noqa: BLE001  one photo must not fail those that came with it
            return error

    def _look(self, asked: Asked) -> _Seen:
        """Decode, detect and align."""
        embed, crops = asked.embed, asked.crops
        watch = self._watch() if asked.liveness else None
        clock = _Clock()
        opened = Photo.open(asked.photo, self._photos)
        side = self._inference.max_side_px
        with self.budget.hold(opened.weight(side)):
            with clock.stage("decode"):
                picture = opened.decode(side)
            with clock.stage("detect"):
                found = self._detect(picture)
            closer = self._side_for_chips(found, max(picture.width, picture.height), crops=crops)
            sharp = opened.divisor(closer) >= opened.divisor(side)
            if sharp:
                chips, faces = self._align(picture, found, clock, watch, embed=embed, crops=crops)
        if not sharp:
            # Outside the first hold: photos waiting for more room while holding some could wait for each other.
            del picture
            with self.budget.hold(opened.weight(closer)):
                with clock.stage("decode"):
                    picture = opened.decode(closer)
                chips, faces = self._align(picture, found, clock, watch, embed=embed, crops=crops)
        sha256 = hashlib.sha256(asked.photo).hexdigest()
        return _Seen(Analysis(picture.width, picture.height, sha256, tuple(faces), clock.taken_ms), chips, embed)

    def _watch(self) -> LivenessDetector:
        if self.liveness is None:
            raise LivenessNotLoadedError(
                "Liveness was asked for, and no network that judges it is loaded. Run vultus models pull minifasnet "
                "and set VULTUS_INFERENCE__LIVENESS=minifasnet."
            )
        return self.liveness

    def _detect(self, picture: Picture) -> list[DetectedFace]:
        """Return the faces, left to right, in pixels of the original photo."""
        # The detector shrinks what it searches itself: its cost follows the smallest face wanted, not the pixels.
        height, width = picture.pixels.shape[:2]
        shrunk = max(1.0, max(height, width) / self._inference.max_side_px)
        found = self._detector.detect(picture.pixels, self._inference.min_face_px * shrunk)
        factor = np.array([picture.width / width, picture.height / height])
        return sorted((_scaled(face, factor) for face in found), key=lambda face: face.box.left)

    def _side_for_chips(self, found: list[DetectedFace], longer_side: int, *, crops: bool) -> int:
        """Return the longer side a photo must be decoded at so that no chip, and no crop, is enlarged much.

        The detector sees small faces well enough on a shrunk photo, the embedder does not.

        Args:
            found: Faces in pixels of the original photo.
            longer_side: Of the original photo, pixels.
            crops: Whether crops are wanted beside the network's chips.
        """
        template = self._template.array
        enlarged = [scale_of(similarity_transform(face.landmarks, template)) for face in found]
        if crops:
            enlarged += [scale_of_crop(face.box) for face in found]
        return math.ceil(longer_side * min(1.0, TOLERATED_ENLARGEMENT * max(enlarged, default=0.0)))

    def _align(
        self,
        picture: Picture,
        found: list[DetectedFace],
        clock: _Clock,
        watch: LivenessDetector | None,
        *,
        embed: bool,
        crops: bool,
    ) -> tuple[Pixels, list[DescribedFace]]:
        """Return the chips, (n, views, side, side, 3), and the faces with all that is wanted but their vectors."""
        factor = np.array([picture.pixels.shape[1] / picture.width, picture.pixels.shape[0] / picture.height])
        chips, faces = [], []
        boxes = [_scaled(face, factor).box for face in found]
        points = np.array([face.landmarks * factor for face in found], np.float32)
        with clock.stage("align"):
            for at, face in enumerate(found):
                chip = align(picture.pixels, points[at], self._frontal)
                crop = cut(picture.pixels, boxes[at], boxes[:at] + boxes[at + 1 :]) if crops else None
                quality = measure(face, chip, self._frontal.array)
                if self.scorer is not None:
                    (score,) = self.scorer.score(align(picture.pixels, points[at], SCORED)[None])
                    quality = replace(quality, network_score=float(score))
                faces.append(DescribedFace(face, quality, None, crop))
                if embed:
                    same = self._template == self._frontal
                    chips.append(chip if same else align(picture.pixels, points[at], self._template))
            side = self._template.side
            views = np.empty((0, 1, side, side, 3), np.uint8)
            if chips:
                views = self._views.cut(picture.pixels, points, np.stack(chips))
        if watch is not None:
            with clock.stage("liveness"):
                faces = [
                    replace(face, liveness=watch.assess(picture.pixels, _scaled(face.face, factor))) for face in faces
                ]
        return views, faces


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


def default_pack(store: WeightsStore) -> str:
    """Return the pack that `vultus models use` chose, or the built-in one."""
    return next(iter(store.records.chosen()), BUILTIN.name)
