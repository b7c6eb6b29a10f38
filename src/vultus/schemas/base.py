"""Building blocks of the wire: strict models, safe text, metadata that PostgreSQL can hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

MAX_METADATA_DEPTH = 8
MAX_METADATA_VALUES = 500
MAX_NUMBER = 1e300


class Wire(BaseModel):
    """A message; fields nobody knows are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def like(cls, value: object) -> Self:
        """Translate a value of the domain or of a service whose members have the same names."""
        return cls.model_validate(value, from_attributes=True)


def _storable(text: str) -> str:
    if any(ord(char) < 32 and char not in "\t\n\r" for char in text) or "\x7f" in text:
        raise ValueError("must not contain control characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode; it contains a lone surrogate") from error
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_storable)]
Name = Annotated[Text, Field(max_length=200)]
Reference = Annotated[Text, Field(max_length=200)]
Word = Annotated[Text, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what PostgreSQL's jsonb cannot hold or nobody should keep beside a face."""
    todo: list[tuple[Any, int]] = [(value, 1)]
    seen = 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if depth > MAX_METADATA_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
        if seen > MAX_METADATA_VALUES:
            raise ValueError(f"must not hold more than {MAX_METADATA_VALUES} values")
        if isinstance(item, dict):
            todo += [(key, depth + 1) for key in item] + [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            todo += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str):
            _storable(item)
        elif isinstance(item, (int, float)) and not abs(item) < MAX_NUMBER:
            raise ValueError("must hold finite numbers only")
    return value


Metadata = Annotated[dict[str, Any], AfterValidator(_check_metadata)]


def _a_number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_a_number)]
Number = Annotated[float, BeforeValidator(_a_number), Field(allow_inf_nan=False)]


def _rounded(digits: int) -> PlainSerializer:
    return PlainSerializer(lambda value: round(value, digits), return_type=float, when_used="json")


Cosine = Annotated[float, _rounded(4), Field(description="Cosine similarity, −1 to 1.")]
Probability = Annotated[
    float | None,
    PlainSerializer(lambda value: value if value is None else round(value, 4), when_used="json"),
    Field(
        None,
        description="Share of comparisons with this cosine that are of one person, where half of all comparisons are "
        "(equal priors), 0.0001 to 0.9999; null where unknown. Not the chance that the result of a search is right: "
        "for that read the verdict and its false positive identification rate.",
    ),
]
Measure = Annotated[float, _rounded(2)]
Rate = Annotated[float, PlainSerializer(lambda value: float(f"{value:.3g}"), return_type=float, when_used="json")]


def _reasonable(moment: datetime) -> datetime:
    if not 1970 <= moment.year <= 9000:
        raise ValueError("must lie between the years 1970 and 9000")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_reasonable)]

Item = TypeVar("Item")


class Page(Wire, Generic[Item]):
    """A stretch of a list; pass `next_cursor` as `cursor` for what follows, until it is null."""

    items: list[Item]
    next_cursor: str | None = Field(None, description="Opaque; null on the last page.")
