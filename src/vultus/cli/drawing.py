"""Draws what was recognised onto a photo."""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from vultus.domain import Verdict
from vultus.errors import InvalidInputError
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.models.imaging.lettering import render_text
from vultus.utils.characters import escape_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vultus.domain import Candidate
    from vultus.services.recognition.verdicts import Recognition, RecognizedFace
    from vultus.settings import PhotoSettings

COLOURS = {
    Verdict.MATCH: "#1a9850",
    Verdict.AMBIGUOUS: "#e08214",
    Verdict.NO_MATCH: "#4575b4",
    Verdict.LOW_QUALITY: "#878787",
    Verdict.NOT_LIVE: "#b2182b",
}
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY = 92


def ensure_drawable(target: Path, photo: Path) -> None:
    """Return if a drawing of a photo can be written, before any work is done for it.

    Raises:
        InvalidInputError: Its suffix says no format, it is the photo itself, a folder, or lies where nothing can be
            written.
    """
    if target.suffix.lower() not in FORMATS:
        raise InvalidInputError(f"--draw {target}: name a file that ends in {', '.join(FORMATS)}.")
    if target.is_dir():
        raise InvalidInputError(f"--draw {target}: is a folder; name a file in it.")
    if not target.parent.is_dir():
        raise InvalidInputError(f"--draw {target}: there is no folder {target.parent}.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InvalidInputError(f"--draw {target}: cannot be written there.")
    if target.exists() and photo.exists() and target.samefile(photo):
        raise InvalidInputError(f"--draw {target}: is the photo itself, which would be lost.")


def draw_recognition(content: bytes, recognition: Recognition, target: Path, limits: PhotoSettings) -> list[str]:
    """Write the upright photo with a box, five points and a label for every face.

    Args:
        content: The photo.
        recognition: Its faces.
        target: A file whose suffix says the format.
        limits: On photos.

    Returns:
        Names that could not be written, whose faces have their number alone.
    """
    encoded = EncodedPhoto.open(content, limits)
    pixels = encoded.decode(max(encoded.header.width, encoded.header.height)).pixels
    canvas = Image.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    unit = max(2, round(max(canvas.size) / 500))
    unwritten = []
    for number, face in enumerate(recognition.faces, 1):
        colour = COLOURS[face.decision.verdict]
        box = face.described.face.box
        pen.rectangle((box.left, box.top, box.right, box.bottom), outline=colour, width=unit)
        for x, y in face.described.face.landmarks:
            pen.ellipse((x - unit, y - unit, x + unit, y + unit), fill=colour)
        label, name = _render_label(number, face, 7 * unit)
        unwritten += [name] if name else []
        width, height = label.shape[1] + 2 * unit, label.shape[0]
        left = max(0, min(round(box.left), canvas.width - width))
        top = round(box.top) - height if box.top >= height else min(round(box.bottom), canvas.height - height)
        pen.rectangle((left, top, left + width, top + height), fill=colour)
        canvas.paste("white", (left + unit, top), Image.fromarray(label))
    written = BytesIO()
    canvas.save(written, FORMATS[target.suffix.lower()], quality=QUALITY)
    target.write_bytes(written.getvalue())
    return unwritten


def _render_label(number: int, face: RecognizedFace, size_px: int) -> tuple[NDArray[np.uint8], str | None]:
    """Return a label as a mask, and the name that could not be written in it."""
    start = render_text(f"{number}  ", size_px)
    if face.person is None:
        return _join(start, render_text(face.decision.verdict.replace("_", " "), size_px)), None
    name = escape_text(_get_name(face.person))
    written = render_text(name, size_px)
    label = _join(start, written, render_text(f"  {face.person.similarity:.3f}", size_px))
    return label, name if written is None else None


def _join(*masks: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    return np.hstack([mask for mask in masks if mask is not None])


def _get_name(person: Candidate) -> str:
    return person.name or person.external_id or str(person.person_id)
