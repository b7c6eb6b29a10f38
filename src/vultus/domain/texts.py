"""The one rule for texts that are kept about people, collections and keys, and how any text is shown.

Names, ids, purposes and metadata are compared, printed and drawn later, so a text must look like what it is: no control
characters, nothing invisible, nothing that turns the direction of what follows, one normal form (NFC), one kind of
blank. What languages need stays: a joiner between letters of scripts that join, or in emoji, and a variation selector
after the ideograph or emoji that it varies.

The categories are those of the Unicode version of the Python that runs; a character newer than it counts as unassigned.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from datetime import datetime

MAX_NAME_LENGTH = 200
MAX_PURPOSE_LENGTH = 500
MAX_COLLECTION_NAME_LENGTH = 64
MAX_METADATA_TEXT_LENGTH = 2000

FIRST_YEAR, LAST_YEAR = 1970, 9000
"""Of every moment that is kept; PostgreSQL and Python could compute with no more than a few centuries beyond."""

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
_REPLACEMENT = "\ufffd"
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
        return f"must not contain U+{ord(self.character):04X}, {self.reason}"


def normalize_text(text: str, *, max_length: int, min_length: int = 1, line_breaks: bool = False) -> str:
    """Return a text as it is kept: in NFC, every blank a space, none at its ends.

    Args:
        text: Any text.
        max_length: In characters, after normalisation.
        min_length: The same.
        line_breaks: Whether tabs and line breaks may be inside.

    Raises:
        ValueError: It is empty, too long, or has a character that must not be kept; the message completes "name …".
    """
    if len(text) > 4 * max_length:  # nothing shrinks that much; a long one is not looked through
        raise ValueError(f"must have at most {max_length} characters; it has {len(text)}")
    if text.isascii() and text.isprintable():  # nearly every text
        normal = text.strip()
    else:
        if fault := find_character_fault(text, line_breaks=line_breaks):
            raise ValueError(str(fault))
        spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in text)
        normal = unicodedata.normalize("NFC", spaced).strip()
    if not normal and min_length:
        raise ValueError("must not be empty or blank")
    if len(normal) > max_length:
        raise ValueError(f"must have at most {max_length} characters; it has {len(normal)}")
    return normal


def require_text(label: str, text: str, *, max_length: int = MAX_NAME_LENGTH, line_breaks: bool = False) -> str:
    """Return a text as it is kept; the same rule for services.

    Args:
        label: What the text is, for the error.
        text: Any text.
        max_length: In characters.
        line_breaks: Whether tabs and line breaks may be inside.

    Raises:
        InvalidInputError: It cannot be kept.
    """
    try:
        return normalize_text(text, max_length=max_length, line_breaks=line_breaks)
    except ValueError as error:
        raise InvalidInputError(f"{label}: {error}.") from None


def require_optional_text(label: str, text: str | None) -> str | None:
    """Return a name or id as it is kept, None as None.

    Raises:
        InvalidInputError: It cannot be kept.
    """
    return None if text is None else require_text(label, text)


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


def normalize_moment(moment: datetime) -> datetime:
    """Return a moment that can be kept and computed with.

    Raises:
        ValueError: It is too far away, or has no time zone; the message completes "expires_at …".
    """
    if moment.tzinfo is None:
        raise ValueError("must have a time zone, as in 2030-01-01T00:00:00Z")
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"must lie between the years {FIRST_YEAR} and {LAST_YEAR}")
    return moment


def require_moment(label: str, moment: datetime | None) -> datetime | None:
    """Return a moment that can be kept, None as None; the same rule for services.

    Raises:
        InvalidInputError: It cannot be kept.
    """
    try:
        return None if moment is None else normalize_moment(moment)
    except ValueError as error:
        raise InvalidInputError(f"{label}: {error}.") from None


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
    if char == _REPLACEMENT:
        return "which stands for a character that was lost before"
    return _FORBIDDEN_CATEGORIES.get(unicodedata.category(char))


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
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name, as Python decodes it
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
