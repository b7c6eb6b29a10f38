"""Analysis of uploaded photos, before any rule of a collection applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from vultus.domain import EMBEDDINGS, Lane, LivenessMode, Want, find_matching_box
from vultus.errors import ImageTooLargeError, NoFaceFoundError, SeveralFacesError
from vultus.utils import timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import Analysis, Box, DescribedFace, Liveness


class Reservation(Protocol):
    """A reserved place for a photo that is still being received; released at the end of a `with` block, too."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...

    def release(self) -> None:
        """Give the place back; do nothing the second time."""
        ...


class AnalysisEngine(Protocol):
    """Analyses photos, in this process, in others, or on another machine: what services ask of pixels."""

    def ensure_workers(self) -> None:
        """Raise `UnavailableError` unless a worker can analyse photos."""
        ...

    def ensure_capacity(self, client: str | None = None) -> None:
        """Raise `OverloadedError` unless there is room for a photo of a client, or of one that is not known yet."""
        ...

    def reserve_slot(self, client: str = "") -> Reservation:
        """Reserve a place for a photo of a client, or raise `OverloadedError`."""
        ...

    async def analyze_photo(
        self,
        photo: bytes,
        space_id: str,
        want: Want = EMBEDDINGS,
        lane: Lane = Lane.INTERACTIVE,
        *,
        source: str = "",
        reservation: Any = None,
    ) -> Analysis:
        """Return every face of a photo, left to right, with what is wanted of it.

        Args:
            photo: A JPEG, PNG, WebP, HEIC or AVIF file.
            space_id: Embedding space whose networks analyse it.
            want: What is wanted of it.
            lane: How urgent it is.
            source: Of a frame in the live lane.
            reservation: From `reserve_slot` of the same engine; it is released.
        """
        ...


@dataclass(frozen=True, slots=True)
class Photo:
    """An uploaded file.

    Attributes:
        content: Its bytes.
        filename: The name it was sent with, used only in the response.
        reservation: The slot of the admission queue that was reserved for it, or for one of the photos sent with it.
    """

    content: bytes
    filename: str | None = None
    reservation: Reservation | None = field(default=None, compare=False, repr=False)


class PhotoAnalyzer:
    """Detects and embeds the faces of photos."""

    def __init__(self, engine: AnalysisEngine, *, max_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_bytes

    async def analyze_photo(
        self,
        photo: Photo,
        space_id: str,
        want: Want = EMBEDDINGS,
        lane: Lane = Lane.INTERACTIVE,
        *,
        source: str = "",
    ) -> Analysis:
        """Return every face of a photo, left to right, with what is wanted of it.

        Args:
            photo: The photo; the slot reserved for it is released.
            space_id: Embedding space whose networks analyse it.
            want: What is wanted of it.
            lane: How urgent it is.
            source: Of a frame in the live lane: a newer one takes the place of a waiting one of the same source only.

        Raises:
            ImageError: The bytes are no usable image.
            UnsupportedImageError: The format is not supported.
            ImageTooLargeError: Too many bytes or pixels.
            OverloadedError: Too many photos are waiting.
            PackNotLoadedError: No loaded pack computes vectors in the embedding space.
        """
        if len(photo.content) > self._max_bytes:
            raise ImageTooLargeError(f"The photo has {len(photo.content):,} bytes; the limit is {self._max_bytes:,}.")
        analysis = await self._engine.analyze_photo(
            photo.content, space_id, want, lane, source=source, reservation=photo.reservation
        )
        timing.record_stages(analysis.timings_ms)
        return analysis

    def ensure_workers(self) -> None:
        """Raise unless a worker can analyse photos.

        Raises:
            UnavailableError: No worker can, or the server is shutting down.
        """
        self._engine.ensure_workers()

    def ensure_capacity(self, client: str | None = None) -> None:
        """Raise unless the admission queue has room for a photo, so that no upload is read in vain.

        Args:
            client: Who sends it, if that is known yet.

        Raises:
            OverloadedError: Too many photos are waiting.
        """
        self._engine.ensure_capacity(client)

    def reserve_slot(self, client: str = "") -> Reservation:
        """Reserve a slot of the admission queue for a photo that is still being received; the `Photo` takes it along.

        Args:
            client: Who sends it.

        Raises:
            OverloadedError: Too many photos are waiting.
        """
        return self._engine.reserve_slot(client)

    async def get_single_face(
        self, photo: Photo, space_id: str, *, largest: bool, liveness: LivenessMode = LivenessMode.OFF
    ) -> DescribedFace:
        """Return the face of a photo that shows one person.

        Raises:
            NoFaceFoundError: There is none.
            SeveralFacesError: There are several and `largest` is not set.
        """
        want = Want(liveness=liveness is not LivenessMode.OFF)
        return pick_face(await self.analyze_photo(photo, space_id, want), largest=largest)


def find_attack(face: DescribedFace, mode: LivenessMode) -> str | None:
    """Return the reason why a face counts as a presentation attack; None if it is live or liveness is not required."""
    return find_attack_reason(face.liveness, mode)


def find_attack_reason(liveness: Liveness | None, mode: LivenessMode) -> str | None:
    """Return the reason why a liveness counts as a presentation attack, as `find_attack`."""
    if mode is not LivenessMode.REQUIRED or liveness is None or liveness.live:
        return None
    return liveness.reason.value


def find_matching_face(faces: Sequence[DescribedFace], box: Box) -> DescribedFace | None:
    """Return the face that another detector found at a box: it overlaps enough, or contains the centre of the box.

    Args:
        faces: Faces of the same photo.
        box: Box of a face, in the same pixels.
    """
    at = find_matching_box([face.face.box for face in faces], box)
    return None if at is None else faces[at]


def pick_face(analysis: Analysis, *, largest: bool) -> DescribedFace:
    """Return the only face, or with `largest` the one with the longest shorter side.

    Raises:
        NoFaceFoundError: There is none.
        SeveralFacesError: There are several and `largest` is not set.
    """
    if not analysis.faces:
        raise NoFaceFoundError("No face was found in the photo.")
    if len(analysis.faces) > 1 and not largest:
        raise SeveralFacesError(
            f"{len(analysis.faces)} faces were found; send a photo of one person, or set largest_face=true.",
            faces=len(analysis.faces),
        )
    return max(analysis.faces, key=lambda face: face.quality.size_px)
