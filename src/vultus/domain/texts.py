"""The one rule for texts and moments that are kept about people, collections and keys.

Names, ids, purposes and metadata are compared, printed and drawn later, so a text must look like what it is: only
characters that show what they are (`utils/characters.py`), one normal form (NFC), one kind of blank, none at the ends.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from vultus.errors import InvalidInputError
from vultus.utils.characters import find_character_fault

if TYPE_CHECKING:
    from datetime import datetime

MAX_NAME_LENGTH = 200
MAX_PURPOSE_LENGTH = 500
MAX_COLLECTION_NAME_LENGTH = 64
MAX_METADATA_TEXT_LENGTH = 2000

FIRST_YEAR, LAST_YEAR = 1970, 9000
"""Of every moment that is kept; PostgreSQL and Python could compute with no more than a few centuries beyond."""


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
        raise InvalidInputError(f"{label} {error}.") from None


def require_optional_text(label: str, text: str | None) -> str | None:
    """Return a name or id as it is kept, None as None.

    Raises:
        InvalidInputError: It cannot be kept.
    """
    return None if text is None else require_text(label, text)


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
        raise InvalidInputError(f"{label} {error}.") from None
