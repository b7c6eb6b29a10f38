"""What an index of one-bit codes is made of."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from vultus.domain.faces import FloatArray

NumberArray = NDArray[np.int64]  # the numbers of templates, which rise in the order of commits within a collection
CodeArray = NDArray[np.uint8]  # (n, width): a code a row, bits / 8 bytes


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """How a collection's templates of a contract are coded.

    Attributes:
        centre: (d,) float32, subtracted before the projections; what is stored, and so what holds, is its float16.
        bits: Of a code.
    """

    collection_id: UUID
    contract_id: str
    centre: FloatArray
    bits: int
