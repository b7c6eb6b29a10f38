"""What every format has in common: a header, a weight, and a way to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from vultus.domain import Pixels

ImageFormat = Literal["JPEG", "PNG", "WebP", "HEIC", "AVIF"]

MAX_LOST_SHARE = 1 / 32
"""Share of a picture that may be missing at its end: viewers show such photos, and no face is so small a strip."""

MAX_BLOCKS = 100_000
"""Most segments or chunks of a file; each costs a step of the reader, and photos have a few thousand at most."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format, size and orientation from the header of a photo.

    Attributes:
        format: Of the file.
        width: In pixels as stored, before the orientation is applied.
        height: In pixels as stored.
        orientation: 1..8 as in Exif; 1 is upright.
    """

    format: ImageFormat
    width: int
    height: int
    orientation: int

    @property
    def is_transposed(self) -> bool:
        """Whether width and height are swapped by the orientation."""
        return self.orientation >= 5


class EncodedPicture(Protocol):
    """A file whose header was read."""

    @property
    def header(self) -> ImageHeader:
        """Format, size and orientation."""
        ...

    def count_bytes(self, divisor: int) -> int:
        """Return how many bytes of memory the decoder and its result hold at most, as measured.

        Args:
            divisor: By which the sides are divided while decoding, if the format can: 1, 2, 4 or 8.
        """
        ...

    def decode(self, divisor: int) -> Pixels:
        """Return the pixels as stored, (height, width, 3) uint8, RGB, at their size divided by `divisor` or larger.

        Raises:
            ImageTruncatedError: The data ends early or is damaged.
        """
        ...
