"""Column types whose Python side is a domain value: half-precision vectors and times without an end."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sqlalchemy import DateTime, Float
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import TypeDecorator, UserDefinedType

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.elements import ColumnElement

    from vultus.domain import FloatArray


class HalfVector(UserDefinedType[Any]):
    """pgvector's `halfvec` of any dimension: a (d,) float32 array here, float16 in the database.

    Values travel in binary through the codec that `database.py` registers on every connection.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in DDL."""
        return "HALFVEC"

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return what makes a vector a parameter: bytes, which in a list are no array of arrays."""
        del dialect
        return encode_halfvec

    class Comparator(UserDefinedType.Comparator[Any]):
        """Adds pgvector's operators."""

        def cosine_distance(self, other: object) -> ColumnElement[float]:
            """Return 1 − cosine as SQL."""
            return cast("ColumnElement[float]", self.op("<=>", return_type=Float())(other))

    comparator_factory = Comparator


ischema_names["halfvec"] = HalfVector  # so that comparing the schema with the tables knows the type


class Until(TypeDecorator[datetime | None]):
    """A moment, or None for never: PostgreSQL's `infinity`, so that comparisons need no special case."""

    impl = DateTime(timezone=True)
    should_evaluate_none = True  # None is a value here: never left to the column's default
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime:
        """Turn never into asyncpg's spelling of infinity, the greatest naive datetime."""
        del dialect
        return datetime.max if value is None or value.year == datetime.max.year else value  # noqa: DTZ901

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn infinity into None."""
        del dialect
        return None if value is None or value.year == datetime.max.year else value  # noqa: DTZ901


def encode_halfvec(vector: FloatArray) -> bytes:
    """Return a (d,) array in pgvector's binary form: dimension, zero, then big-endian float16."""
    return struct.pack(">HH", len(vector), 0) + np.asarray(vector, dtype=">f2").tobytes()


def decode_halfvec(data: bytes) -> FloatArray:
    """Return the (d,) float32 array of pgvector's binary form."""
    return np.frombuffer(data, dtype=">f2", offset=4).astype(np.float32)
