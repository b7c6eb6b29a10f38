"""What a person's metadata may hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vultus.domain.texts import MAX_METADATA_TEXT_LENGTH, MAX_NAME_LENGTH, normalize_text
from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_METADATA_DEPTH = 8
MAX_METADATA_VALUES = 500
MAX_METADATA_LENGTH = 16_384
"""Characters of a person's metadata as JSON, so that a page of 500 persons stays small."""

MAX_NUMBER = 1e300


def normalize_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object as it is kept: texts and keys under the rule for texts, neither too deep nor too large.

    Raises:
        ValueError: It cannot be kept; the message completes "metadata …".
    """
    normal: dict[str, Any] = _normalize_value(value, 1, iter(range(MAX_METADATA_VALUES)))
    if (length := len(json.dumps(normal, ensure_ascii=False))) > MAX_METADATA_LENGTH:
        raise ValueError(f"must have at most {MAX_METADATA_LENGTH:,} characters as JSON; it has {length:,}")
    return normal


def require_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object as it is kept; the same rule for services.

    Raises:
        InvalidInputError: It cannot be kept.
    """
    try:
        return normalize_metadata(value)
    except ValueError as error:
        raise InvalidInputError(f"The person's metadata {error}.") from None


def _normalize_value(value: Any, depth: int, budget: Iterator[int]) -> Any:
    if depth > MAX_METADATA_DEPTH:
        raise ValueError(f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
    if next(budget, None) is None:
        raise ValueError(f"must not hold more than {MAX_METADATA_VALUES} values")
    if isinstance(value, dict):
        return _normalize_object(value, depth, budget)
    if isinstance(value, list):
        return [_normalize_value(item, depth + 1, budget) for item in value]
    if isinstance(value, str):
        return normalize_text(value, max_length=MAX_METADATA_TEXT_LENGTH, min_length=0, line_breaks=True)
    if isinstance(value, int | float) and not abs(value) < MAX_NUMBER:
        raise ValueError("must hold finite numbers only")
    return value


def _normalize_object(value: dict[str, Any], depth: int, budget: Iterator[int]) -> dict[str, Any]:
    normal: dict[str, Any] = {}
    for given, item in value.items():
        if next(budget, None) is None:
            raise ValueError(f"must not hold more than {MAX_METADATA_VALUES} values")
        key = normalize_text(given, max_length=MAX_NAME_LENGTH)
        if key in normal:
            raise ValueError(f"must not hold the key '{key}' twice")
        normal[key] = _normalize_value(item, depth + 1, budget)
    return normal
