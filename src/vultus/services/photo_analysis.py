"""Photos in, faces out: the analysis of uploads before any rule of the gallery applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.domain import LivenessMode
from vultus.errors import ImageTooLargeError, NoFaceFoundError, SeveralFacesError
from vultus.utils import timing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from vultus.domain import Analysis, Box, DescribedFace
    from vultus.models.pipeline import FacePipeline
    from vultus.models.workers.pool import AnalysisPool


LEAST_OVERLAP = 0.3
"""Of the boxes two detectors draw around one face; one may draw the head, the other from brow to chin."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An uploaded file: its bytes, and the name it was sent with for the answer only."""

    content: bytes
    filename: str | None = None


class Images:
    """Detect and describe the faces of a photo."""

    def __init__(self, pool: AnalysisPool, *, max_bytes: int) -> None:
        self._pool = pool
        self._max_bytes = max_bytes

    async def analyze(
        self,
        photo: Photo,
        pipeline: FacePipeline,
        *,
        embed: bool = True,
        crops: bool = False,
        liveness: LivenessMode = LivenessMode.OFF,
    ) -> Analysis:
        """Return every face of a photo, left to right, with a crop and a judgement of liveness of each if wanted.

        Raises:
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not read.
            ImageTooLargeError: Too many bytes or pixels.
            OverloadedError: Too many photos are waiting.
        """
        if len(photo.content) > self._max_bytes:
            raise ImageTooLargeError(f"The photo has {len(photo.content):,} bytes; the limit is {self._max_bytes:,}.")
        watch = liveness is not LivenessMode.OFF
        analysis = await self._pool.analyze(photo.content, pipeline, embed=embed, crops=crops, liveness=watch)
        timing.record(analysis.timings_ms)
        return analysis

    def check_workers(self) -> None:
        """Return if there is anybody to analyse photos.

        Raises:
            UnavailableError: There is not, or the server is shutting down.
        """
        self._pool.check_workers()

    def check_room(self) -> None:
        """Return if a photo would be taken now: a caller need not send one for nothing.

        Raises:
            OverloadedError: Too many photos are waiting.
        """
        self._pool.check_room()

    def place(self) -> AbstractContextManager[None]:
        """Keep a place, for a moment, for the photo of a request that is read within the block.

        Raises:
            OverloadedError: Too many photos are waiting.
        """
        return self._pool.place()

    async def one_face(
        self, photo: Photo, pipeline: FacePipeline, *, largest: bool, liveness: LivenessMode = LivenessMode.OFF
    ) -> DescribedFace:
        """Return the face of a photo that shows one person.

        Raises:
            NoFaceFoundError: There is none.
            SeveralFacesError: There are several and the largest was not asked for.
        """
        return pick_face(await self.analyze(photo, pipeline, liveness=liveness), largest=largest)


def rejected(face: DescribedFace, mode: LivenessMode) -> str | None:
    """Return why a face is taken for a presentation attack, if liveness is required of it."""
    if mode is not LivenessMode.REQUIRED or face.liveness is None or face.liveness.live:
        return None
    return face.liveness.reason.value


def same_face(faces: Sequence[DescribedFace], box: Box) -> DescribedFace | None:
    """Return the face another detector found where a box is, if any: it overlaps enough, or the box's middle is in it.

    Args:
        faces: Of the same photo.
        box: Of a face, in the same pixels.
    """
    best = max(faces, key=lambda face: face.face.box.overlap(box), default=None)
    if best is None:
        return None
    found, (across, down) = best.face.box, box.centre
    middle = found.left <= across <= found.right and found.top <= down <= found.bottom
    return best if middle or found.overlap(box) >= LEAST_OVERLAP else None


def pick_face(analysis: Analysis, *, largest: bool) -> DescribedFace:
    """Return the only face, or with `largest` the one with the longest shorter side.

    Raises:
        NoFaceFoundError: There is none.
        SeveralFacesError: There are several and the largest was not asked for.
    """
    if not analysis.faces:
        raise NoFaceFoundError("No face was found in the photo.")
    if len(analysis.faces) > 1 and not largest:
        raise SeveralFacesError(
            f"{len(analysis.faces)} faces were found; send a photo of one person, or set largest_face=true.",
            faces=len(analysis.faces),
        )
    return max(analysis.faces, key=lambda face: face.quality.size_px)
