"""Decoded images of any depth and number of channels as RGB, with little memory beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import Pixels

# What is wrong with a file is said by the error that its sender gets.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

CONVERSIONS = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}

BAND_PIXELS = 2**18
"""Pixels that are composited at once: temporary copies of more would outweigh the picture."""


def decode_with_opencv(content: bytes, flags: int) -> Pixels | None:
    """Return what OpenCV decodes, None if it cannot; the caller has looked at format and size."""
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError from error
        return None
    return cast("Pixels | None", decoded)


def convert_to_rgb(decoded: NDArray[Any]) -> Pixels:
    """Return the RGB of grey, BGR or BGRA, 8 or 16 bits a channel, composited on white."""
    if decoded.ndim == 2:
        decoded = decoded[:, :, None]
    height, width, channels = decoded.shape
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, BAND_PIXELS // max(1, width))
    for start in range(0, height, rows):
        band = decoded[start : start + rows]
        if band.dtype == np.uint16:
            band = (band >> 8).astype(np.uint8)
        band = np.ascontiguousarray(band)
        colours: NDArray[Any] = cv2.cvtColor(band, CONVERSIONS[channels])
        if channels == 4:
            alpha = cv2.cvtColor(np.ascontiguousarray(band[:, :, 3]), cv2.COLOR_GRAY2RGB)
            # white − (white − colour) · alpha
            colours = cv2.bitwise_not(cv2.multiply(cv2.bitwise_not(colours), alpha, scale=1 / 255))
        rgb[start : start + rows] = colours
    return rgb
