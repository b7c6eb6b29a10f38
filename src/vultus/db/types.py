"""Column types for half-precision vectors and open-ended timestamps, with domain values on the Python side."""

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
    """pgvector's `halfvec` of any dimension: a (d,) float32 array in Python, float16 in the database.

    Values are transferred in binary by the codec that `database.py` registers on every connection.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in DDL."""
        return "HALFVEC"

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the encoder of parameters: to bytes, which in a list are not taken for an array of arrays."""
        del dialect
        return encode_halfvec

    class Comparator(UserDefinedType.Comparator[Any]):
        """Adds pgvector's operators."""

        def cosine_distance(self, other: object) -> ColumnElement[float]:
            """Return 1 − cosine as SQL."""
            return cast("ColumnElement[float]", self.op("<=>", return_type=Float())(other))

    comparator_factory = Comparator


ischema_names["halfvec"] = HalfVector  # for Alembic's comparison of schema and tables


class OpenEndedTimestamp(TypeDecorator[datetime | None]):
    """A timestamp, or None for no end: PostgreSQL's `infinity`, so that comparisons need no special case."""

    impl = DateTime(timezone=True)
    should_evaluate_none = True  # None is a value: the column's default does not apply
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime:
        """Convert None to asyncpg's infinity, the greatest naive datetime."""
        del dialect
        return datetime.max if value is None or value.year == datetime.max.year else value  # noqa: DTZ901

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert infinity to None."""
        del dialect
        return None if value is None or value.year == datetime.max.year else value  # noqa: DTZ901


def encode_halfvec(vector: FloatArray) -> bytes:
    """Return a (d,) array in pgvector's binary format: dimension, zero, then big-endian float16."""
    return struct.pack(">HH", len(vector), 0) + np.asarray(vector, dtype=">f2").tobytes()


def decode_halfvec(data: bytes) -> FloatArray:
    """Return the (d,) float32 array of a value in pgvector's binary format."""
    return np.frombuffer(data, dtype=">f2", offset=4).astype(np.float32)
