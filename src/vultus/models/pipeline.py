"""Decode, detect, align, embed: the pipeline that services use."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import (
    EMBEDDINGS,
    Analysis,
    Box,
    Calibration,
    DescribedFace,
    DetectedFace,
    Embedding,
    EmbeddingSpace,
    LoadedSpace,
    NetworkOrigin,
    Pixels,
    Want,
    find_matching_box,
)
from vultus.errors import ImageTooLargeError, LivenessNotLoadedError, WeightsError
from vultus.models.catalog.measured import get_min_face_px, get_quality_rules, list_earlier_quality_rules
from vultus.models.catalog.packs import BUILTIN, get_pack
from vultus.models.detection.finding import FaceFinder, scale_face
from vultus.models.embedding.inputs import build_arcface_template
from vultus.models.imaging.alignment import align_face, compute_tilt_deg
from vultus.models.imaging.cropping import compute_crop_scale, crop_face
from vultus.models.imaging.decoding import DecodedPhoto, EncodedPhoto
from vultus.models.imaging.geometry import compute_transform_scale, estimate_similarity_transform
from vultus.models.imaging.memory_budget import MemoryBudget
from vultus.models.imaging.turning import turn_photo
from vultus.models.loading import load_pack
from vultus.models.quality import measure_quality
from vultus.models.runtime import limit_threads
from vultus.models.runtime.choice import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vultus.domain import FloatArray
    from vultus.models.imaging.memory_budget import Budget
    from vultus.models.liveness import LivenessDetector
    from vultus.models.loading import LoadedPack
    from vultus.models.quality.ediffiqa import Ediffiqa
    from vultus.models.weights.store import WeightsStore
    from vultus.settings import InferenceSettings, PhotoSettings

TOLERATED_ENLARGEMENT = 0.8
"""Share of a crop's resolution that suffices; decoding a photo again for the rest is not worth its cost."""

QUALITY_TEMPLATE = build_arcface_template(112)
"""Crop that quality networks take."""


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """A photo, a JPEG, PNG, WebP, HEIC or AVIF file, and what is wanted of it."""

    photo: bytes
    want: Want = EMBEDDINGS


@dataclass(frozen=True, slots=True)
class _AlignedPhoto:
    """A photo with detected and aligned faces.

    Attributes:
        analysis: Everything but the vectors.
        chips: (n, views, side, side, 3) of the faces to embed, in their order.
        embedded: Positions of these faces; None if no embeddings are wanted.
    """

    analysis: Analysis
    chips: Pixels
    embedded: list[int] | None


class FacePipeline:
    """The networks of one pack, ready to analyse photos; safe for concurrent use by several threads."""

    def __init__(
        self, loaded: LoadedPack, *, inference: InferenceSettings, photos: PhotoSettings, calibration: Calibration
    ) -> None:
        self.pack = loaded.pack
        self.space = loaded.space
        self.calibration = calibration
        self.runtime = loaded.runtime
        self.liveness: LivenessDetector | None = None
        self.scorer: Ediffiqa | None = None
        self.enrol_rule, self.recognize_rule = get_quality_rules(loaded.pack.detector.family)
        self._template = loaded.template
        self._face_classifier = loaded.face_classifier
        self._frontal = loaded.frontal
        self._view_cropper = loaded.view_cropper
        self._finder = FaceFinder(
            loaded.detector,
            self._score_faces,
            min_face_px=inference.min_face_px or get_min_face_px(loaded.pack.detector.family),
            max_side_px=inference.max_side_px,
            sure_score=self.enrol_rule.min_score,
            max_faces=photos.max_faces,
        )
        self._embedder = loaded.embedder
        self._photos = photos
        self.budget: Budget = MemoryBudget(photos.memory_budget)
        self.on_decoding: Callable[[int | None], None] = lambda _position: None
        """Called with a photo's position in its batch when its decoding begins, and with None when that ends."""

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
        """Verify the weights, build the graphs or read them from the cache, and load them; blocks for about a second.

        Args:
            inference: How the networks run, and the pack unless one is given.
            photos: Limits on photos.
            store: Source of the weights.
            pack: Replaces the pack of the settings.
            calibrated: Whether to require thresholds, which decisions need.

        Raises:
            NotFoundError: There is no such pack.
            SetupError: The requested runtime is not available, or the outputs of a network in it differ.
            WeightsError: A file is missing or not the published one, or the pack has no calibration.
            LicenceError: A licence was not accepted.
        """
        limit_threads()
        loaded = load_pack(get_pack(pack or inference.pack or get_default_pack(store)), store, Runtime(inference))
        if loaded.calibration is None and calibrated:
            raise WeightsError(
                f"Nobody has measured thresholds for pack '{loaded.pack.name}' (contract {loaded.space.id}). "
                "Measure them on photos with one folder a person: "
                f"vultus evaluate pairs DIR --pack {loaded.pack.name} --keep"
            )
        calibration = loaded.calibration or Calibration((), 0.0, "not measured")
        return cls(loaded, inference=inference, photos=photos, calibration=calibration)

    def describe_space(self) -> LoadedSpace:
        """Return what services know of the pipeline."""
        detector, embedder = (
            NetworkOrigin(network.name, network.licence.name, network.paper)
            for network in (self.pack.detector, self.pack.embedder)
        )
        return LoadedSpace(
            **{field.name: getattr(self.space, field.name) for field in fields(EmbeddingSpace)},
            calibration=self.calibration,
            enrol_rule=self.enrol_rule,
            recognize_rule=self.recognize_rule,
            earlier_rules=list_earlier_quality_rules(self.pack.detector.family),
            pack=self.pack.name,
            detector=detector,
            embedder=embedder,
            is_commercial_use_allowed=self.pack.is_commercial_use_allowed,
            runtime=self.runtime,
            caution=self.pack.caution,
        )

    def analyze_photo(self, photo: bytes, want: Want = EMBEDDINGS) -> Analysis:
        """Return every face of a photo, left to right; blocks.

        Args:
            photo: A JPEG, PNG, WebP, HEIC or AVIF file.
            want: What is wanted of it.

        Raises:
            LivenessNotLoadedError: Liveness is requested and no liveness network is loaded.
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: More bytes or pixels than the limits.
        """
        (answer,) = self.analyze_photos([AnalysisRequest(photo, want)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def analyze_photos(self, requests: Sequence[AnalysisRequest]) -> list[Analysis | Exception]:
        """Return what `analyze_photo` returns or raises, for each photo in order; blocks.

        One photo's pixels are held at a time; the embedder runs once over the faces of all photos.
        """
        aligned = [self._prepare_photo_or_error(one, position) for position, one in enumerate(requests)]
        chips = [one.chips for one in aligned if isinstance(one, _AlignedPhoto) and len(one.chips)]
        clock = _StageTimer()
        vectors = iter(())
        if chips:
            with clock.measure_stage("embed"):
                vectors = iter(self._embedder.embed(np.concatenate(chips)))
        embed_ms_per_face = clock.durations_ms.get("embed", 0.0) / max(1, sum(map(len, chips)))
        return [
            one if isinstance(one, Exception) else self._add_embeddings(one, vectors, embed_ms_per_face)
            for one in aligned
        ]

    def _add_embeddings(
        self, aligned: _AlignedPhoto, vectors: Iterator[FloatArray], embed_ms_per_face: float
    ) -> Analysis:
        """Return the analysis of a photo with embeddings, its faces' vectors taken from the iterator over all."""
        faces = aligned.analysis.faces
        if aligned.embedded is None:
            return aligned.analysis
        embeddings = {at: Embedding(next(vectors), self.space.id) for at in aligned.embedded}
        return replace(
            aligned.analysis,
            faces=tuple(replace(face, embedding=embeddings.get(at)) for at, face in enumerate(faces)),
            timings_ms=aligned.analysis.timings_ms | {"embed": embed_ms_per_face * len(embeddings)},
        )

    def _prepare_photo_or_error(self, request: AnalysisRequest, position: int) -> _AlignedPhoto | Exception:
        try:
            return self._prepare_photo(request, position)
        except MemoryError:
            return ImageTooLargeError("The photo needs more memory than a worker has. Make it smaller.")
        except Exception as error:  # noqa: BLE001  one photo must not fail those that came with it
            return error

    @contextmanager
    def _announce_decoding(self, position: int) -> Iterator[None]:
        self.on_decoding(position)
        try:
            yield
        finally:
            self.on_decoding(None)

    def _prepare_photo(self, request: AnalysisRequest, position: int) -> _AlignedPhoto:
        """Decode a photo, detect its faces and align them."""
        want = request.want
        liveness_detector = self._get_liveness_detector() if want.liveness else None
        clock = _StageTimer()
        with self._announce_decoding(position):
            opened = EncodedPhoto.open(request.photo, self._photos, want.max_pixels)
        side = self._finder.compute_decoding_side(opened.header.width, opened.header.height)
        with self.budget.reserve_bytes(opened.count_held_bytes(side)):
            with clock.measure_stage("decode"), self._announce_decoding(position):
                picture = opened.decode(side)
                view = picture.shrink(side)
            width, height = picture.width, picture.height
            smallest_face_px = self._finder.compute_smallest_face(view)
            with clock.measure_stage("detect"):
                found = self._finder.find_faces(view, turned=want.turned)
            upright, scores, quarters, left_out = found.upright, found.scores, found.quarters, found.left_out
            faces = found.list_sent_faces()
            picture = found.photo if view is picture else turn_photo(picture, quarters)
            del found, view
            embedded = list_unknown_faces(faces, want.known_boxes) if want.embed else None
            decoding_side = self._compute_decoding_side(upright, max(width, height), crops=want.crops)
            sharp = opened.compute_divisor(decoding_side) >= opened.compute_divisor(side)
            if sharp:
                chips, described = self._align_faces(
                    picture, upright, embedded or (), clock, liveness_detector, crops=want.crops
                )
        if not sharp:
            # Outside the first reservation: photos that wait for more pixels while holding some could deadlock.
            del picture
            with self.budget.reserve_bytes(opened.count_held_bytes(decoding_side)):
                with clock.measure_stage("decode"), self._announce_decoding(position):
                    picture = turn_photo(opened.decode(decoding_side), quarters)
                chips, described = self._align_faces(
                    picture, upright, embedded or (), clock, liveness_detector, crops=want.crops
                )
        analysis = Analysis(
            width,
            height,
            hashlib.sha256(request.photo).hexdigest(),
            tuple(map(_place_in_photo, described, faces, scores)),
            clock.durations_ms,
            left_out,
            smallest_face_px,
        )
        return _AlignedPhoto(analysis, chips, embedded)

    def _get_liveness_detector(self) -> LivenessDetector:
        if self.liveness is None:
            raise LivenessNotLoadedError(
                "Liveness was asked for, and no network that judges it is loaded. Run vultus models pull minifasnet "
                "and set VULTUS_INFERENCE__LIVENESS=minifasnet."
            )
        return self.liveness

    def _score_faces(self, photo: DecodedPhoto, detected: list[DetectedFace]) -> list[float]:
        """Return the face scores of faces in pixels of the photo at full size."""
        factor = np.array([photo.pixels.shape[1] / photo.width, photo.pixels.shape[0] / photo.height])
        points = [(face.landmarks * factor).astype(np.float32) for face in detected]
        return self._face_classifier.score_chips(
            [align_face(photo.pixels, landmarks, self._frontal) for landmarks in points], points
        )

    def _compute_decoding_side(self, detected: list[DetectedFace], longer_side: int, *, crops: bool) -> int:
        """Return the longer side, in pixels, to decode a photo at so that no chip and no crop is enlarged much.

        A shrunk photo suffices to detect small faces, but not to embed them.

        Args:
            detected: Faces in pixels of the original photo.
            longer_side: Of the original photo, pixels.
            crops: Whether crops are requested in addition to the chips.
        """
        template = self._template.array
        enlarged = [
            compute_transform_scale(estimate_similarity_transform(face.landmarks, template)) for face in detected
        ]
        if crops:
            enlarged += [compute_crop_scale(face.box) for face in detected]
        return math.ceil(longer_side * min(1.0, TOLERATED_ENLARGEMENT * max(enlarged, default=0.0)))

    def _align_faces(
        self,
        picture: DecodedPhoto,
        detected: list[DetectedFace],
        embedded: Sequence[int],
        clock: _StageTimer,
        liveness_detector: LivenessDetector | None,
        *,
        crops: bool,
    ) -> tuple[Pixels, list[DescribedFace]]:
        """Return the chips, (n, views, side, side, 3), and the faces with everything requested but their vectors."""
        factor = np.array([picture.pixels.shape[1] / picture.width, picture.pixels.shape[0] / picture.height])
        chips, faces = [], []
        boxes = [scale_face(face, factor).box for face in detected]
        points = np.array([face.landmarks * factor for face in detected], np.float32)
        with clock.measure_stage("align"):
            for at, face in enumerate(detected):
                chip = align_face(picture.pixels, points[at], self._frontal)
                crop = crop_face(picture.pixels, boxes[at], boxes[:at] + boxes[at + 1 :]) if crops else None
                quality = measure_quality(face, chip, self._frontal.array)
                if self.scorer is not None:
                    (score,) = self.scorer.score_chips(align_face(picture.pixels, points[at], QUALITY_TEMPLATE)[None])
                    quality = replace(quality, network_score=float(score))
                faces.append(DescribedFace(face, quality, None, crop))
                if at in embedded:
                    same = self._template == self._frontal
                    chips.append(chip if same else align_face(picture.pixels, points[at], self._template))
            side = self._template.side
            views = np.empty((0, 1, side, side, 3), np.uint8)
            if chips:
                views = self._view_cropper.crop_views(picture.pixels, points[list(embedded)], np.stack(chips))
        if liveness_detector is not None:
            with clock.measure_stage("liveness"):
                faces = [
                    replace(
                        face, liveness=liveness_detector.assess_liveness(picture.pixels, scale_face(face.face, factor))
                    )
                    for face in faces
                ]
        return views, faces


class _StageTimer:
    """Measures how long the stages of an analysis take."""

    def __init__(self) -> None:
        self.durations_ms: dict[str, float] = {}

    @contextmanager
    def measure_stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.durations_ms[name] = self.durations_ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3


def _place_in_photo(described: DescribedFace, face: DetectedFace, face_score: float) -> DescribedFace:
    """Return a face that was described upright, in pixels of the photo as it was sent, with its face score."""
    quality = replace(described.quality, roll_deg=compute_tilt_deg(face.landmarks), face_score=face_score)
    return replace(described, face=face, quality=quality)


def list_unknown_faces(detected: list[DetectedFace], known_boxes: Sequence[Box]) -> list[int]:
    """Return the positions of the faces that no known box matches; a known box matches one face at most."""
    boxes = [face.box for face in detected]
    known = {find_matching_box(boxes, box) for box in known_boxes}
    return [at for at in range(len(detected)) if at not in known]


def get_default_pack(store: WeightsStore) -> str:
    """Return the name of the pack set by `vultus models use`, or of the built-in one."""
    return next(iter(store.installation.list_chosen_packs()), BUILTIN.name)
