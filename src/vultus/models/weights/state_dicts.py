"""PyTorch state dicts as arrays, without PyTorch and without running code that a pickle names.

A `.pth` file is a pickle that names functions to call. Only the few names of tensors are allowed, each replaced by a
function of this file; any other name is rejected before anything is called. Both layouts are read: a zip archive with
one entry per storage, and the older stream of pickles followed by the storages. What a file makes us hold is bounded by
its length: storages are as long as they are in the file, and tensors together at most `MAX_GROWTH` times the file.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Array = NDArray[Any]

LEGACY_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First number of the older layout."""

MAX_GROWTH = 4
"""Bytes of tensors for a byte of the file: tensors may share storages, but not expand a number to a gigabyte."""

STORAGE_DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


def read_state_dict(content: bytes) -> dict[str, Array]:
    """Return the tensors of a state dict by name.

    Tensors wrapped in a dictionary under `state_dict` are unwrapped, and the prefix `module.` that training on several
    devices adds is removed.

    Args:
        content: Of a `.pth` or `.pt` file.

    Raises:
        WeightsError: The file is no state dict, is damaged, or names code to run.
    """
    try:
        loaded = _load_from_zip(content) if zipfile.is_zipfile(io.BytesIO(content)) else _load_from_stream(content)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"The file is not a readable PyTorch state dict: {error}.") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsError("The file holds no state dict: no tensors by name.")
    tensors = {str(name).removeprefix("module."): value for name, value in loaded.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, np.ndarray)}


class _StateDictUnpickler(pickle.Unpickler):
    """Unpickles tensors and nothing else."""

    def __init__(
        self, file: BinaryIO, load_storage: Callable[[str, str, int], Array] | None = None, *, max_bytes: int = 0
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self._load_storage = load_storage
        self._bytes_left = max_bytes

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name that tensors need; raise `WeightsError` for any other."""
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "torch" and name in STORAGE_DTYPES:
            return name
        if module == "torch._utils" and name in {"_rebuild_tensor_v2", "_rebuild_parameter"}:
            return self._build_tensor if name == "_rebuild_tensor_v2" else _unwrap_parameter
        raise WeightsError(f"The file asks for {module}.{name} to be called; only plain tensors are read.")

    def persistent_load(self, pid: Any) -> Array:
        """Return the storage of a tensor."""
        if self._load_storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise WeightsError("The file refers to something that is no tensor.")
        _, kind, key, _, size = pid[:5]
        return self._load_storage(str(kind), str(key), int(size))

    def _build_tensor(
        self, storage: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
    ) -> Array:
        """Return a tensor of a storage; offset and strides are in elements."""
        self._bytes_left -= storage.itemsize * math.prod(shape)
        if self._bytes_left < 0:
            raise WeightsError("The tensors of the file are larger than a file of its length can hold.")
        return _build_tensor(storage, offset, shape, strides)


def _build_tensor(storage: Array, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Return a tensor of a storage; offset and strides are in elements."""
    if not shape:
        return storage[offset : offset + 1].reshape(())
    last = offset + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    if min(shape) > 0 and not (offset >= 0 and min(strides) >= 0 and last < len(storage)):
        raise WeightsError("A tensor reaches past its storage.")
    size = storage.itemsize
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [step * size for step in strides], writeable=False)
    return np.ascontiguousarray(view)


def _unwrap_parameter(tensor: Array, *_: Any) -> Array:
    return tensor


def _load_from_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(content):
            # PyTorch does not compress, so what unpacks to more than the file is no file of PyTorch's.
            raise WeightsError("The file is compressed, or its entries overlap; PyTorch writes neither.")
        names = {name.split("/", 1)[1]: name for name in archive.namelist() if "/" in name}
        storages: dict[str, bytes] = {}

        def read_storage(kind: str, key: str, size: int) -> Array:
            if key not in storages:
                storages[key] = archive.read(names[f"data/{key}"])
            return np.frombuffer(storages[key], STORAGE_DTYPES[kind], size)

        pickled, max_bytes = io.BytesIO(archive.read(names["data.pkl"])), MAX_GROWTH * len(content)
        return _StateDictUnpickler(pickled, read_storage, max_bytes=max_bytes).load()


def _load_from_stream(content: bytes) -> Any:
    file = io.BytesIO(content)
    if _StateDictUnpickler(file).load() != LEGACY_MAGIC_NUMBER:
        raise WeightsError("The file is not a PyTorch state dict.")
    _StateDictUnpickler(file).load()  # protocol version
    _StateDictUnpickler(file).load()  # description of the machine that wrote the file
    # Tensors precede their storages: read the tensors for the sizes, then the storages, then the tensors again.
    start = file.tell()
    sizes: dict[str, tuple[str, int]] = {}

    def create_placeholder(kind: str, key: str, size: int) -> Array:
        sizes[key] = (kind, size)
        if not 0 <= size <= len(content):
            raise WeightsError("A storage is larger than the file.")
        return np.zeros(size, STORAGE_DTYPES[kind])

    max_bytes = MAX_GROWTH * len(content)
    _StateDictUnpickler(file, create_placeholder, max_bytes=max_bytes).load()
    keys = _StateDictUnpickler(file).load()
    storages = _read_storages(file, keys, sizes)
    file.seek(start)
    return _StateDictUnpickler(file, lambda _kind, key, _size: storages[key], max_bytes=max_bytes).load()


def _read_storages(file: BinaryIO, keys: list[str], sizes: Mapping[str, tuple[str, int]]) -> dict[str, Array]:
    storages = {}
    for key in keys:
        kind, size = sizes[key]
        count = int.from_bytes(file.read(8), "little")
        content = file.read(count * np.dtype(STORAGE_DTYPES[kind]).itemsize)
        if count != size:
            raise WeightsError("A storage has another size than its tensors say.")
        storages[key] = np.frombuffer(content, STORAGE_DTYPES[kind], size)
    return storages
