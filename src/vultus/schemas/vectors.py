"""Persons registered from vectors."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from vultus.schemas.base import SPACE_ID, ApiModel, CollectionId, Name, Reference, WholeNumber
from vultus.schemas.galleries import ConsentIn
from vultus.services.enrolment.bulk import MAX_ROWS, ImportResult, VectorBatch

EXAMPLE_VECTOR = base64.b64encode(np.full(128, 128**-0.5, "<f4").tobytes()).decode()
MAX_VECTOR_BYTES = 4 * 4096


def _decode_vector(value: Any) -> bytes:
    try:
        data = base64.b64decode(value, validate=True)
    except (TypeError, binascii.Error):
        raise ValueError("must be base64") from None
    if not data or len(data) % 4 or len(data) > MAX_VECTOR_BYTES:
        raise ValueError("must hold whole float32 numbers, 4096 at most")
    return data


EncodedVector = Annotated[
    bytes, BeforeValidator(_decode_vector), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]


class VectorIn(ApiModel):
    """A person and the vector of their face."""

    external_id: Reference = Field(description="Your own id, unique in the collection.", examples=["E-1017"])
    name: Name | None = Field(None, examples=["Ada"])
    vector: EncodedVector = Field(
        description="Base64 of little-endian float32 numbers, of any length but zero.", examples=[EXAMPLE_VECTOR]
    )


class VectorsIn(ApiModel):
    """Persons to register, and what they all agreed to."""

    contract_id: Name = Field(
        description="Embedding space of the vectors, from `/v1/models` or `/v1/embeddings`.", examples=[SPACE_ID]
    )
    consent: ConsentIn
    persons: list[VectorIn] = Field(min_length=1, max_length=MAX_ROWS)

    @model_validator(mode="after")
    def validate_equal_dimensions(self) -> Self:
        """Require vectors of equal length, as one network makes them."""
        if len({len(person.vector) for person in self.persons}) > 1:
            raise ValueError("every vector must have the same number of numbers")
        return self

    def to_batch(self, collection: str) -> VectorBatch:
        """Convert to the service's type."""
        data = b"".join(person.vector for person in self.persons)
        return VectorBatch(
            collection=collection,
            space_id=self.contract_id,
            external_ids=[person.external_id for person in self.persons],
            names=[person.name for person in self.persons],
            vectors=np.frombuffer(data, "<f4").reshape(len(self.persons), -1),
            consent=self.consent.to_consent_grant(),
        )


class VectorsOut(ApiModel):
    """How many persons were registered: all of them."""

    collection_id: CollectionId
    registered: WholeNumber = Field(examples=[5000])

    @classmethod
    def from_domain(cls, outcome: ImportResult) -> Self:
        """Build the response from a service result."""
        return cls(collection_id=outcome.collection.id, registered=outcome.registered)
