"""JSON without what is read in two ways: NaN, double keys, lone surrogates, other encodings than UTF-8."""

from __future__ import annotations

import json
import re
from typing import Any

import jiter

_PLACE = re.compile(r"(?P<reason>.*) at line (?P<line>\d+) column (?P<column>\d+)", re.DOTALL)
_DOUBLE_KEY = re.compile(r'Detected duplicate key "(?P<key>.*)"', re.DOTALL)


def load_json(document: bytes) -> Any:
    """Return a JSON value; a byte order mark of UTF-8 is skipped.

    Raises:
        ValueError: It is not JSON, or nested too deeply; the message completes "The body …" with line and column.
    """
    encoding = json.detect_encoding(document)
    if encoding not in {"utf-8", "utf-8-sig"}:
        raise ValueError(f"is in {encoding.upper()}; send UTF-8")
    try:
        return jiter.from_json(
            document.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False, cache_mode="none", catch_duplicate_keys=True
        )
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {_format_reason(str(error))}") from None


def _format_reason(message: str) -> str:
    """Return the parser's message with the place first."""
    found = _PLACE.fullmatch(message)
    if found is None:
        return message
    reason = found["reason"]
    if twice := _DOUBLE_KEY.fullmatch(reason):
        reason = f"the key '{twice['key']}' is given twice"
    return f"line {found['line']}, column {found['column']}: {reason}"
