"""InsightFace Server's person search: its native library, built from the published source, in a separate process.

    git clone https://github.com/deepinsight/insightface && cd insightface
    cmake -S server/native/search -B build && cmake --build build
    export VULTUS_BENCH_INSIGHTFACE=$PWD/build/cpu/libifs_search_cpu.so

The library is called as its header declares it (`server/native/search/include/ifs_search.h`, ABI 2): vectors of 512
numbers and length 1, each with the number of a person; per probe, the persons with the closest faces, exactly.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from ctypes import POINTER, byref, c_double, c_float, c_int32, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vultus.domain import FloatArray

LIBRARY_VARIABLE = "VULTUS_BENCH_INSIGHTFACE"
DIMENSION = 512
PROFILES = {"float32": 0, "int8": 4}
ADD_BATCH = 50_000
WARM_UP_SEARCHES = 3


class _Options(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_uint32),
        ("profile", c_uint32),
        ("reserve_rows", c_uint64),
        ("max_rows", c_uint64),
        ("device", c_int32),
        ("topk_mode", c_uint32),
        ("growth_factor", c_double),
        ("reserved", c_uint64 * 4),
    )


class PersonSearch:
    """Exact search with one person per row, in one of the library's profiles.

    Args:
        library: The built file.
        enrolled: (n, 512).
        profile: A key of `PROFILES`.
    """

    def __init__(self, library: str, enrolled: NDArray[np.floating], profile: str) -> None:
        self._library = ctypes.CDLL(library)
        options = _Options(
            struct_size=ctypes.sizeof(_Options),
            profile=PROFILES[profile],
            reserve_rows=len(enrolled),
            max_rows=len(enrolled),
            device=-1,
            growth_factor=1.5,
        )
        self._index = c_void_p()
        self._ensure_success(self._library.ifs_search_create(byref(options), byref(self._index)))
        for start in range(0, len(enrolled), ADD_BATCH):
            some = _normalize_vectors(enrolled[start : start + ADD_BATCH])
            ids = np.arange(start + 1, start + len(some) + 1, dtype=np.uint64)
            numbers = ids.ctypes.data_as(POINTER(c_uint64))
            values = some.ctypes.data_as(POINTER(c_float))
            self._ensure_success(
                self._library.ifs_search_add_batch(self._index, numbers, numbers, values, c_uint64(len(some)))
            )

    def __call__(self, probe: FloatArray, limit: int) -> list[tuple[int, float]]:
        """Return the rows of the `limit` closest persons and their cosines."""
        persons, faces = np.empty(limit, np.uint64), np.empty(limit, np.uint64)
        cosines, count = np.empty(limit, np.float32), c_uint64()
        self._ensure_success(
            self._library.ifs_search_grouped_topk(
                self._index,
                probe.ctypes.data_as(POINTER(c_float)),
                c_uint64(limit),
                persons.ctypes.data_as(POINTER(c_uint64)),
                faces.ctypes.data_as(POINTER(c_uint64)),
                cosines.ctypes.data_as(POINTER(c_float)),
                byref(count),
                None,
            )
        )
        return [(int(persons[at]) - 1, float(cosines[at])) for at in range(count.value)]

    def close(self) -> None:
        """Free the index."""
        self._library.ifs_search_destroy(self._index)

    def _ensure_success(self, status: int) -> None:
        if status:
            raise RuntimeError(f"InsightFace's library refused with status {status}.")


def _normalize_vectors(vectors: NDArray[np.floating]) -> FloatArray:
    wide = vectors.astype(np.float32)
    return np.ascontiguousarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def time_searches(
    enrolled: NDArray[np.float16], probes: FloatArray, limit: int, seconds: float
) -> dict[str, tuple[list[float], list[int]]] | None:
    """Return, by profile, the milliseconds of sequential searches and the first row of each.

    They run on the cores that this process is bound to, with as many threads. None if no library is named.
    """
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library:
        print(
            f"search: InsightFace Server is skipped; {LIBRARY_VARIABLE} names no library "
            "(see benchmarks/insightface.py)"
        )
        return None
    with tempfile.TemporaryDirectory(prefix="vultus-bench-") as folder:
        for name, vectors in (("enrolled", enrolled), ("probes", probes)):
            np.save(Path(folder) / f"{name}.npy", vectors)
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.insightface", library, folder, str(limit), str(seconds)],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))},
        )
    results: dict[str, tuple[list[float], list[int]]] = json.loads(ran.stdout)
    return results


def main() -> None:
    """Time all profiles in this process and print the result of `time_searches`."""
    library, folder, limit, seconds = sys.argv[1:]
    enrolled, probes = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in ("enrolled", "probes"))
    results = {}
    for profile in PROFILES:
        search = PersonSearch(library, enrolled, profile)
        taken, found = [], []
        until = time.perf_counter() + float(seconds)
        for at, probe in enumerate(_normalize_vectors(probes)):
            started = time.perf_counter()
            ((first, _), *_) = search(probe, int(limit))
            now = time.perf_counter()
            if at >= WARM_UP_SEARCHES:
                taken.append((now - started) * 1e3)
                found.append(first)
            if now > until and len(taken) >= 5:
                break
        results[profile] = taken, found
        search.close()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
