"""What characters a text may have, and how any text is shown.

Refused and escaped alike: control characters, what is invisible, what turns the direction of what follows, and what has
no appearance of its own. What languages need stays: a joiner between letters of scripts that join, or in emoji, and a
variation selector after the ideograph or emoji that it varies.

The categories are those of the Unicode version of the Python that runs; a character newer than it counts as unassigned.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_FORBIDDEN_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Co": "a private character, which looks different everywhere",
    "Cn": "not a character of Unicode",
    "Cs": "half of a character (a lone surrogate)",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Letters, marks and symbols that show nothing: Unicode's Default_Ignorable_Code_Point beyond Cf, and an empty Braille
# cell. Variation selectors are judged by what they follow.
_BLANK_CHARACTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d159")
_STAND_INS = {
    "\ufffc": "which stands for an object that is not in the text",
    "\ufffd": "which stands for a character that was lost before",
}
_MAX_MARKS = 30  # on one letter: what Unicode's stream-safe format allows (UAX #15), far more than any language needs
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # bytes that are not UTF-8, as Python decodes arguments and file names
_JOINERS = frozenset("\u200c\u200d")
_LINE_BREAKS = frozenset("\t\n\r")
# First words of the names of their letters in Unicode.
_JOINING_SCRIPTS = re.compile(
    "ADLAM|ARABIC|BALINESE|BENGALI|BRAHMI|CHAKMA|DEVANAGARI|GRANTHA|GUJARATI|GURMUKHI|HANIFI|JAVANESE|KAITHI|KANNADA|"
    "KHMER|KHOJKI|KHUDAWADI|LAO|LEPCHA|LIMBU|MALAYALAM|MANDAIC|MANICHAEAN|MARCHEN|MEETEI|MODI|MONGOLIAN|MYANMAR|NEWA|"
    "NKO|ORIYA|PHAGS-PA|SAURASHTRA|SHARADA|SIDDHAM|SINHALA|SUNDANESE|SYLOTI|SYRIAC|TAI|TAKRI|TAMIL|TELUGU|TIBETAN|"
    "TIRHUTA"
)


class CharacterFault(NamedTuple):
    """A character that a text must not contain, and why."""

    character: str
    reason: str

    def __str__(self) -> str:
        code = ord(self.character)
        if _FIRST_BYTE <= code <= _LAST_BYTE:
            return f"must not contain {_escape(self.character)}, a byte that is not UTF-8"
        return f"must not contain U+{code:04X}, {self.reason}"


def find_character_fault(text: str, *, line_breaks: bool = False) -> CharacterFault | None:
    """Return the first character of a text that must not be kept or shown; None if there is none."""
    for at, char in enumerate(text):
        if char == " " or (line_breaks and char in _LINE_BREAKS):
            continue
        if reason := _find_reason(text, at):
            return CharacterFault(char, reason)
    return None


def escape_text(text: str, *, line_breaks: bool = False) -> str:
    r"""Return a text that can be printed: what must not be kept in one stands as an escape such as `\x1b` or `\u202e`.

    Whatever was stored or named before: nothing in it reaches a terminal or a log line as a command, or hides.
    Bytes of a file's name that are not UTF-8 stand as `\xe9`.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = "\t\n" if line_breaks else ""
    return "".join(
        char if char in shown or not _find_reason(text, at) else _escape(char) for at, char in enumerate(text)
    )


def escape_json(document: str) -> str:
    r"""Return a JSON document without characters that a terminal would obey or hide, as `\u` escapes of JSON."""
    return _NOT_IN_JSON.sub(_escape_for_json, document)


def _find_reason(text: str, at: int) -> str | None:
    """Return why the character at a place must not be kept; None if it may."""
    char = text[at]
    if char in _JOINERS:
        return None if _joins(text, at) else "an invisible character"
    if _is_variation_selector(char):
        return None if _varies(text, at) else "an invisible character"
    if char in _BIDI_CONTROLS:
        return "which changes the direction of what follows"
    if char in _BLANK_CHARACTERS:
        return "an invisible character"
    if char in _STAND_INS:
        return _STAND_INS[char]
    category = unicodedata.category(char)
    return _find_mark_reason(text, at) if category.startswith("M") else _FORBIDDEN_CATEGORIES.get(category)


def _find_mark_reason(text: str, at: int) -> str | None:
    """Return why a mark must not be kept: it would be drawn on whatever stands before, or over other lines."""
    if at == 0 or unicodedata.category(text[at - 1]) in {"Zs", "Cc"}:
        return "a mark without a letter before it"
    before = text[max(0, at - _MAX_MARKS) : at]
    if len(before) == _MAX_MARKS and all(unicodedata.category(char).startswith("M") for char in before):
        return f"the mark after {_MAX_MARKS} others on one letter"
    return None


def _joins(text: str, at: int) -> bool:
    """Whether a joiner stands between letters of a script that joins, or between emoji."""
    base = _find_base(text, at)
    follower = text[at + 1 : at + 2]
    if not base or not follower:
        return False
    if unicodedata.category(base) in {"So", "Sk"}:
        return text[at] == "\u200d" and unicodedata.category(follower) == "So"
    scripts = [unicodedata.name(char, "").split(" ")[0] for char in (base, follower)]
    return scripts[0] == scripts[1] and _JOINING_SCRIPTS.fullmatch(scripts[0]) is not None


def _find_base(text: str, at: int) -> str:
    """Return the last character before a place that is no mark and no variation selector; empty if there is none."""
    while at > 0 and unicodedata.category(text[at - 1]).startswith("M"):
        at -= 1
    return text[at - 1 : at]


def _is_variation_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" or char in "\u180b\u180c\u180d\u180f"


def _varies(text: str, at: int) -> bool:
    """Whether a variation selector follows what has variants: an ideograph, an emoji, a Mongolian letter."""
    base = text[at - 1 : at] if at else ""
    name = unicodedata.name(base, "") if base else ""
    return (
        name.startswith(("CJK UNIFIED", "CJK COMPAT", "MONGOLIAN", "PHAGS-PA", "MYANMAR"))
        or unicodedata.category(base or " ") in {"So", "Sm", "Sk"}
        or (base != "" and base in "#*0123456789\u203c\u2049\u2139\u3030\u303d")
    )


def _escape(char: str) -> str:
    code = ord(char)
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_NOT_IN_JSON = re.compile(r"[^\n -~]+")


def _escape_for_json(found: re.Match[str]) -> str:
    text = found.group()
    return "".join(
        "".join(f"\\u{unit:04x}" for unit in _get_utf16_units(char)) if _find_reason(text, at) else char
        for at, char in enumerate(text)
    )


def _get_utf16_units(char: str) -> tuple[int, ...]:
    code = ord(char)
    if code < 0x10000:
        return (code,)
    return (0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF))
