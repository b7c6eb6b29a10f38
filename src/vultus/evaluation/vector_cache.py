"""Vectors of data sets on disk, so that a second evaluation runs no networks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from vultus.evaluation.runner import PhotoVectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vultus.evaluation.datasets import DataSet


def compute_cache_key(space_id: str, settings: str, data: DataSet) -> str:
    """Return a name that changes with whatever changes vectors.

    Args:
        space_id: Embedding space: networks, weights, alignment and preparation.
        settings: How photos are decoded and faces are looked for, as text.
        data: Its photos count by name and content.
    """
    digest = hashlib.sha256(settings.encode())
    for photo in data.photos:
        content = hashlib.sha256((data.root / photo).read_bytes()).digest()
        digest.update(photo.encode() + b"\0" + content)
    return f"{space_id}-{digest.hexdigest()[:16]}"


def get_or_embed(folder: Path | None, key: str, embed: Callable[[], PhotoVectors]) -> PhotoVectors:
    """Return the vectors stored under a key, or embed and store them; without a folder nothing is stored."""
    path = folder / f"{key}.npz" if folder else None
    if path and path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return PhotoVectors(stored["vectors"], stored["has_vector"])
    found = embed()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, vectors=found.vectors, has_vector=found.has_vector)
        partial.replace(path)  # an interrupted run leaves no half a file under the key
    return PhotoVectors(found.vectors, found.has_vector)
