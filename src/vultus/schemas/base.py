"""Building blocks of requests and responses: a strict base, safe text, metadata that PostgreSQL can hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Generic, Self, TypeVar, get_args, get_origin
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from vultus.domain.metadata import normalize_metadata
from vultus.domain.texts import (
    MAX_COLLECTION_NAME_LENGTH,
    MAX_NAME_LENGTH,
    MAX_PURPOSE_LENGTH,
    normalize_moment,
    normalize_text,
)


class ApiModel(BaseModel):
    """Base of every request and response model; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def from_attributes(cls, value: object) -> Self:
        """Build the model from a domain value or service result whose attributes have the same names."""
        return cls.model_validate(value, from_attributes=True)

    @classmethod
    def build_example(cls, **changes: Any) -> dict[str, Any]:
        """Compose an example in JSON of the examples and defaults of the fields.

        Args:
            **changes: Values of fields to show instead.

        Raises:
            TypeError: A field has neither.
        """
        return {name: _build_field_example(field) for name, field in cls.model_fields.items()} | changes

    @classmethod
    def build_request_example(cls) -> dict[str, Any]:
        """Compose an example of a request, which can be sent as it is: required fields, and others with an example.

        Raises:
            TypeError: A required field has none.
        """
        return {
            name: _build_field_example(field)
            for name, field in cls.model_fields.items()
            if field.examples or field.is_required()
        }


def _build_field_example(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    return _build_value_example(field.annotation) if field.is_required() else field.default


def _build_value_example(annotation: Any) -> Any:
    """Return the example of a model, a list, or a named type such as `PersonId`; null where that is allowed."""
    arguments = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation.build_request_example() if annotation.__name__.endswith("In") else annotation.build_example()
    if get_origin(annotation) is list:
        return [_build_value_example(arguments[0])]
    for part in arguments:
        if isinstance(part, FieldInfo) and part.examples:
            return part.examples[0]
    if NoneType in arguments:
        return _build_value_example(arguments[0]) if get_origin(arguments[0]) is Annotated else None
    raise TypeError(f"no example for {annotation}")


class MergePatch(ApiModel):
    """Base of the bodies of PATCH: a JSON merge patch (RFC 7396)."""

    def to_patch(self) -> dict[str, Any]:
        """Return the members that were sent, null for those to remove."""
        return self.model_dump(exclude_unset=True)


@dataclass(frozen=True, slots=True)
class NotRemovable:
    """Marks an optional member of a patch that cannot be null.

    Attributes:
        reason: Why not.
    """

    reason: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse null, which would remove the member, with the reason."""
        return core_schema.no_info_before_validator_function(self._validate_present, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the member without null."""
        (described,) = [one for one in handler(schema)["anyOf"] if one != {"type": "null"}]
        return dict(described)

    def _validate_present(self, value: Any) -> Any:
        if value is None:
            raise ValueError(f"must not be null: {self.reason}; leave it out to keep it")
        return value


@dataclass(frozen=True, slots=True)
class TextRule:
    """The domain's rule for texts, with the lengths that the description of the API gives."""

    max_length: int
    line_breaks: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Normalise a text, or refuse it in the domain's words."""
        return core_schema.no_info_after_validator_function(self._normalize, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the text with its lengths."""
        return {**handler(schema), "minLength": 1, "maxLength": self.max_length}

    def _normalize(self, text: str) -> str:
        return normalize_text(text, max_length=self.max_length, line_breaks=self.line_breaks)


Name = Annotated[str, TextRule(MAX_NAME_LENGTH)]
Reference = Annotated[str, TextRule(MAX_NAME_LENGTH)]
Purpose = Annotated[str, TextRule(MAX_PURPOSE_LENGTH, line_breaks=True)]
Slug = Annotated[str, TextRule(MAX_COLLECTION_NAME_LENGTH), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


Metadata = Annotated[dict[str, Any], AfterValidator(normalize_metadata)]


# Strict: no text and no truth value is taken for a number.
WholeNumber = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _build_rounding_serializer(digits: int) -> PlainSerializer:
    return PlainSerializer(lambda value: round(value, digits), return_type=float, when_used="json")


Cosine = Annotated[float, _build_rounding_serializer(4), Field(description="Cosine similarity, −1 to 1.")]
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
Measure = Annotated[float, _build_rounding_serializer(2)]
Rate = Annotated[float, PlainSerializer(lambda value: float(f"{value:.3g}"), return_type=float, when_used="json")]


def _refuse_number(value: Any) -> Any:
    """Refuse seconds or milliseconds: which of them is a guess, and a year or `20300101` would be a day of 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and ":" in value):
        return value
    raise PydanticCustomError("datetime_type", "no date and time")


Timestamp = Annotated[AwareDatetime, BeforeValidator(_refuse_number), AfterValidator(normalize_moment)]

TIMESTAMP = "2026-11-24T09:30:00Z"
SPACE_ID, NEW_SPACE_ID = "dlib-resnet-8fd92ff4", "sface-0c2d91aa"
RecordedAt = Annotated[datetime, Field(examples=[TIMESTAMP])]
PersonId = Annotated[UUID, Field(examples=["019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"])]
CollectionId = Annotated[UUID, Field(examples=["019f0c2d-1111-7aaa-8bbb-123456789abc"])]
FaceId = Annotated[UUID, Field(examples=["019f0c2e-6a90-7d11-9e22-aabbccddeeff"])]
ConsentId = Annotated[UUID, Field(examples=["019f0c2e-6a8f-7b01-8c02-0123456789ab"])]
KeyId = Annotated[UUID, Field(examples=["019f0c2d-2222-7bbb-8ccc-abcdefabcdef"])]
ErasureId = Annotated[UUID, Field(examples=["019f0c2e-7000-7abc-8def-001122334455"])]
SpaceId = Annotated[str, Field(examples=[SPACE_ID])]
NewSpaceId = Annotated[str, Field(examples=[NEW_SPACE_ID])]
Digest = Annotated[str, Field(examples=["3b6a3c5e0f1d2a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3"])]

Item = TypeVar("Item")


class Page(ApiModel, Generic[Item]):
    """A stretch of a list; pass `next_cursor` as `cursor` for what follows, until it is null."""

    items: list[Item]
    next_cursor: str | None = Field(None, description="Opaque; null on the last page.")
