"""What a person's metadata may hold."""

from __future__ import annotations

from typing import Any

MAX_METADATA_DEPTH = 8
MAX_METADATA_VALUES = 500
MAX_NUMBER = 1e300


def validate_storable_text(text: str) -> str:
    """Return a text that PostgreSQL can hold.

    Raises:
        ValueError: It contains control characters or a lone surrogate.
    """
    if any(ord(char) < 32 and char not in "\t\n\r" for char in text) or "\x7f" in text:
        raise ValueError("must not contain control characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode; it contains a lone surrogate") from error
    return text


def validate_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object that PostgreSQL's jsonb can hold, neither too deep nor too large.

    Raises:
        ValueError: It is not; the message completes "metadata …".
    """
    stack: list[tuple[Any, int]] = [(value, 1)]
    visited = 0
    while stack:
        item, depth = stack.pop()
        visited += 1
        if depth > MAX_METADATA_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
        if visited > MAX_METADATA_VALUES:
            raise ValueError(f"must not hold more than {MAX_METADATA_VALUES} values")
        if isinstance(item, dict):
            stack += [(key, depth + 1) for key in item] + [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            stack += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str):
            validate_storable_text(item)
        elif isinstance(item, (int, float)) and not abs(item) < MAX_NUMBER:
            raise ValueError("must hold finite numbers only")
    return value
