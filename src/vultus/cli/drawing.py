"""Draws what was recognised onto a photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, ImageOps

from vultus.domain import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.services.recognition.verdicts import Recognition, RecognizedFace

COLOURS = {
    Verdict.MATCH: "#1a9850",
    Verdict.AMBIGUOUS: "#e08214",
    Verdict.NO_MATCH: "#4575b4",
    Verdict.LOW_QUALITY: "#878787",
    Verdict.NOT_LIVE: "#b2182b",
}


def draw_recognition(photo: Path, recognition: Recognition, target: Path) -> None:
    """Write the upright photo with a box, five points and a label for every face."""
    with Image.open(photo) as opened:
        canvas = ImageOps.exif_transpose(opened).convert("RGB")
    canvas_draw = ImageDraw.Draw(canvas)
    unit = max(2, round(max(canvas.size) / 500))
    font = ImageFont.load_default(size=7 * unit)
    for face in recognition.faces:
        colour = COLOURS[face.decision.verdict]
        box = face.described.face.box
        canvas_draw.rectangle((box.left, box.top, box.right, box.bottom), outline=colour, width=unit)
        for x, y in face.described.face.landmarks:
            canvas_draw.ellipse((x - unit, y - unit, x + unit, y + unit), fill=colour)
        label = _format_label(face)
        left, top, right, bottom = canvas_draw.textbbox((0, 0), label, font=font)
        x = max(0.0, min(box.left, canvas.width - (right - left) - 2 * unit))
        y = box.top - (bottom - top) - 3 * unit
        y = box.bottom if y < 0 else y
        canvas_draw.rectangle((x, y, x + right - left + 2 * unit, y + bottom - top + 3 * unit), fill=colour)
        canvas_draw.text((x + unit, y + unit - top), label, fill="white", font=font)
    canvas.save(target, "PNG")


def _format_label(face: RecognizedFace) -> str:
    if person := face.person:
        return f"{person.name or person.external_id or person.person_id} {person.similarity:.3f}"
    return face.decision.verdict.replace("_", " ")
