"""Writes state dicts as PyTorch does, in both of its layouts, without PyTorch."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from vultus.models.weights.state_dicts import LEGACY_MAGIC_NUMBER, STORAGE_DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = {dtype.lstrip("<"): kind for kind, dtype in STORAGE_DTYPES.items()}


class _Storage:
    def __init__(self, key: str, values: Array) -> None:
        self.key = key
        self.values = values
        self.size = values.size if 0 not in values.strides else 1  # that of an expanded number is one


class _Tensor:
    """Pickles as a call of PyTorch's own function."""

    def __init__(self, storage: _Storage, rebuild: Any) -> None:
        self.storage = storage
        self.rebuild = rebuild

    def __reduce__(self) -> Any:
        values = self.storage.values
        strides = tuple(step // values.itemsize for step in values.strides)
        return self.rebuild, (self.storage, 0, values.shape, strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, item: Any) -> Any:
        if not isinstance(item, _Storage):
            return None
        kind = KINDS[item.values.dtype.str.lstrip("<|")]
        return "storage", getattr(sys.modules["torch"], kind), item.key, "cpu", item.size


def _stand_ins() -> dict[str, types.ModuleType]:
    """Return modules named like PyTorch's, whose functions a pickle may reference."""

    def rebuild() -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils = types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    torch = types.ModuleType("torch")
    for kind in STORAGE_DTYPES:
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    return {"torch": torch, "torch._utils": utils}


def saved(tensors: Mapping[str, Array], *, layout: str = "zip", wrap: str | None = None) -> bytes:
    """Return a `.pth` file.

    Args:
        tensors: By name; kept with their strides.
        layout: `zip` or `stream`.
        wrap: Put the tensors in a dictionary under this name.
    """
    modules = _stand_ins()
    storages = {name: _Storage(str(at), values) for at, (name, values) in enumerate(tensors.items())}
    with mock.patch.dict(sys.modules, modules):
        rebuild = modules["torch._utils"]._rebuild_tensor_v2
        content: Any = OrderedDict((name, _Tensor(storage, rebuild)) for name, storage in storages.items())
        described = io.BytesIO()
        _Pickler(described, protocol=2).dump({wrap: content} if wrap else content)
    stream = io.BytesIO()
    if layout == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", described.getvalue())
            for storage in storages.values():
                archive.writestr(f"archive/data/{storage.key}", _bytes(storage))
        return stream.getvalue()
    for part in (LEGACY_MAGIC_NUMBER, 1001, {"little_endian": True}):
        pickle.dump(part, stream, protocol=2)
    stream.write(described.getvalue())
    pickle.dump([storage.key for storage in storages.values()], stream, protocol=2)
    for storage in storages.values():
        stream.write(storage.size.to_bytes(8, "little") + _bytes(storage))
    return stream.getvalue()


def _bytes(storage: _Storage) -> bytes:
    """Return the memory of an array in its own order."""
    step = (storage.values.itemsize,)
    return np.lib.stride_tricks.as_strided(storage.values, (storage.size,), step).tobytes()
