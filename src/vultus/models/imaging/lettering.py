"""Words in any script as masks of letters, to be laid on photos.

Latin, Greek and Cyrillic letters and those of twenty further scripts come from the Noto fonts that a package brings,
Chinese, Japanese and Korean ones from the font inside OpenCV: nothing has to be installed on the machine. Scripts whose
letters change shape or order (Arabic, Devanagari, …) need Pillow's Raqm layout, for which the machine needs FriBiDi.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CJK = "CJK"
_CJK_WORDS = frozenset({"BOPOMOFO", "CJK", "FULLWIDTH", "HALFWIDTH", "HANGUL", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA"})
"""First words of the names of characters that OpenCV's font has."""

_DEFAULT, _EMOJI, _SYMBOLS = "NotoSans", "NotoEmoji", "NotoSansSymbols"
_UNSHAPED = frozenset(
    {_CJK, _DEFAULT, _EMOJI, _SYMBOLS, "NotoSansArmenian", "NotoSansEthiopic", "NotoSansGeorgian", "NotoSansLao"}
    | {"NotoSansThai"}
)
"""Fonts whose letters stand one after the other, from left to right."""

_FOLLOWING = frozenset({"Cf", "Mc", "Me", "Mn"})
"""Categories of marks and joiners, which change the letter before them."""

_BASELINE, _HEIGHT = 1.15, 1.6
"""Of a line, in sizes of its letters."""


def render_text(text: str, size_px: int) -> NDArray[np.uint8] | None:
    """Return a line of text as a mask; None if a letter has no font here, or its script cannot be laid out.

    Args:
        text: Any text without line breaks.
        size_px: Of the letters.

    Returns:
        (height, width) uint8, 255 where there is ink; every line of one size has one height and one baseline.
    """
    runs = _split_runs(text)
    if runs is None or not (features.check("raqm") or all(font in _UNSHAPED for font, _ in runs)):
        return None
    masks = [_render_cjk(run, size_px) if font == _CJK else _render_run(run, font, size_px) for font, run in runs]
    return np.hstack(masks[::-1] if _reads_right_to_left(text) else masks)


def _split_runs(text: str) -> list[tuple[str, str]] | None:
    """Return stretches of text with the font that has them; None if one has a letter that none has."""
    runs: list[tuple[str, str]] = []
    for char in text:
        last = runs[-1][0] if runs else ""
        if last and (unicodedata.category(char) in _FOLLOWING or _has_glyph(last, char)):
            font: str | None = last
        else:
            font = next((name for name in _list_fonts(char) if _has_glyph(name, char)), None)
        if font is None:
            return None
        runs[-1:] = [(font, runs[-1][1] + char)] if font == last else [*runs[-1:], (font, char)]
    return runs


def _list_fonts(char: str) -> list[str]:
    """Return the fonts that may have a character, the best first."""
    script = unicodedata.name(char, "").split(" ")[0]
    if script in _CJK_WORDS:
        return [_CJK]
    own = f"NotoSans{script.title()}"
    return [*([own] if _is_font(own) else []), _DEFAULT, _EMOJI, _SYMBOLS, _CJK]


@cache
def _is_font(name: str) -> bool:
    return files("manimgx_fonts").joinpath(f"{name}[wght].ttf").is_file()


@cache
def _load_font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    content = files("manimgx_fonts").joinpath(f"{name}[wght].ttf").read_bytes()
    return ImageFont.truetype(BytesIO(content), size_px)


@cache
def _has_glyph(font: str, char: str) -> bool:
    """Return whether a font has a character: it looks other than what no font has."""
    if font == _CJK:
        return char == "?" or not np.array_equal(_render_cjk(char, 20), _render_cjk("?", 20))
    if unicodedata.category(char) == "Zs":
        return True
    loaded = _load_font(font, 20)
    return bytes(loaded.getmask(char)) != bytes(loaded.getmask("\U0010ffff"))


def _render_run(run: str, font: str, size_px: int) -> NDArray[np.uint8]:
    loaded = _load_font(font, size_px)
    canvas = Image.new("L", (math.ceil(loaded.getlength(run)) + 1, round(_HEIGHT * size_px)))
    ImageDraw.Draw(canvas).text((0, _BASELINE * size_px), run, fill=255, font=loaded, anchor="ls")
    return np.asarray(canvas, dtype=np.uint8)


def _render_cjk(run: str, size_px: int) -> NDArray[np.uint8]:
    canvas = np.zeros((round(_HEIGHT * size_px), 2 * size_px * (len(run) + 1), 3), np.uint8)
    baseline = (0, round(_BASELINE * size_px))
    end, drawn = cv2.putText(canvas, run, baseline, (255, 255, 255), cv2.FontFace("uni"), size_px, 400)
    return np.ascontiguousarray(np.asarray(drawn, dtype=np.uint8)[:, : max(1, int(end[0])), 0])


def _reads_right_to_left(text: str) -> bool:
    """Return whether the first letter with a direction belongs to a script written from right to left."""
    directions = (unicodedata.bidirectional(char) for char in text)
    return next((found in {"R", "AL"} for found in directions if found in {"L", "R", "AL"}), False)
