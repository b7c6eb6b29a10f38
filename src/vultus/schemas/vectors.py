"""Persons registered from vectors."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Self
from uuid import UUID

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from vultus.schemas.base import Name, Reference, Whole, Wire
from vultus.schemas.galleries import ConsentIn
from vultus.services.enrolment.bulk import MAX_ROWS, Imported, VectorBatch

MAX_VECTOR_BYTES = 4 * 4096


def _numbers(value: Any) -> bytes:
    try:
        data = base64.b64decode(value, validate=True)
    except (TypeError, binascii.Error):
        raise ValueError("must be base64") from None
    if not data or len(data) % 4 or len(data) > MAX_VECTOR_BYTES:
        raise ValueError("must hold whole float32 numbers, 4096 at most")
    return data


Numbers = Annotated[bytes, BeforeValidator(_numbers), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class VectorIn(Wire):
    """A person and the vector of their face."""

    external_id: Reference = Field(description="Your own id, unique in the collection.")
    name: Name | None = None
    vector: Numbers = Field(description="Base64 of little-endian float32 numbers, of any length but zero.")


class VectorsIn(Wire):
    """Persons to register, and what they all agreed to."""

    contract_id: Name = Field(description="Of the vectors, from `/v1/models` or `/v1/embeddings`.")
    consent: ConsentIn
    persons: list[VectorIn] = Field(min_length=1, max_length=MAX_ROWS)

    @model_validator(mode="after")
    def of_one_space(self) -> Self:
        """Vectors of one network are equally long."""
        if len({len(person.vector) for person in self.persons}) > 1:
            raise ValueError("every vector must have the same number of numbers")
        return self

    def batch(self, collection: str) -> VectorBatch:
        """Translate to the service's value."""
        data = b"".join(person.vector for person in self.persons)
        return VectorBatch(
            collection=collection,
            contract_id=self.contract_id,
            external_ids=[person.external_id for person in self.persons],
            names=[person.name for person in self.persons],
            vectors=np.frombuffer(data, "<f4").reshape(len(self.persons), -1),
            consent=self.consent.grant(),
        )


class VectorsOut(Wire):
    """How many persons were registered: all of them."""

    collection_id: UUID
    registered: Whole

    @classmethod
    def of(cls, done: Imported) -> Self:
        """Translate the outcome."""
        return cls(collection_id=done.collection.id, registered=done.registered)
