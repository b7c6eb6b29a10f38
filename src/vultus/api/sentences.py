"""What callers read about wrong fields: our sentences for every type of validation error, none of a framework's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.api.shapes import BodyShape

_MOMENT = "must be a date and time with a time zone, as in 2030-01-01T00:00:00Z"
_WHOLE_NUMBER = "must be a whole number"
_NUMBER = "must be a number"
_OBJECT = "must be an object, as in {{…}}"
_ID = "must be an id, as in 019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"

SENTENCES: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be a text",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing_size": "has too many digits",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "uuid_type": _ID,
    "uuid_parsing": _ID,
    "datetime_type": _MOMENT,
    "datetime_parsing": _MOMENT,
    "datetime_object_invalid": _MOMENT,
    "datetime_from_date_parsing": _MOMENT,
    "timezone_aware": _MOMENT,
    "list_type": "must be a list, as in […]",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "value_error": "{error}",
    "more_fields": "{count} more fields are wrong",
    "many_fields": "{count} fields are wrong; send fewer rows to see which",
}
"""By type of pydantic's errors, and of `validate_body`'s, with the members of their context."""

FALLBACK = "cannot be used: {type}"
"""For a type that no schema causes today."""

_PHOTO_WORDS = re.compile(r"(photo|image|img|picture|file|face|upload)s?(\[\d*\])?", re.IGNORECASE)


def list_invalid_fields(validation_errors: Sequence[Any], shape: BodyShape | None = None) -> list[dict[str, str]]:
    """Return path, message and code of every wrong field, without repeating what was sent.

    Args:
        validation_errors: From pydantic.
        shape: Of the body they are in, for names that come close to an unknown one.
    """
    return [
        {
            "path": ".".join(str(part) for part in error["loc"]),
            "message": _format_message(error, shape),
            "code": error["type"],
        }
        for error in validation_errors
    ]


def _format_message(error: Mapping[str, Any], shape: BodyShape | None) -> str:
    kind, place = error["type"], tuple(error["loc"])
    photos = shape.photos if shape and shape.is_form else ()
    if kind == "extra_forbidden":
        known = shape.list_known_names(place[1:-1]) if shape else ()
        return format_unknown_name("field", str(place[-1]), known, photos)
    if kind == "missing" and len(place) == 2 and place[1] in photos:
        return f"is missing: send the file, with curl: -F {place[1]}=@{place[1]}.jpg"
    context = {name: _format_value(value) for name, value in error.get("ctx", {}).items()}
    return SENTENCES.get(kind, FALLBACK).format(type=kind.replace("_", " "), **context)


def _format_value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def format_unknown_name(what: str, name: str, known: Iterable[str], photos: Sequence[str] = ()) -> str:
    """Return the sentence about a name that does not exist, with the nearest one that does."""
    close = get_close_matches(name.lower(), known, n=1) or (list(photos[:1]) if _PHOTO_WORDS.fullmatch(name) else [])
    return f"unknown {what} '{name}'" + (f"; did you mean '{close[0]}'?" if close else "")
