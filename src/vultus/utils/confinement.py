"""What a worker may do: it decodes photos of strangers, so it gets no more than that takes."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
from pathlib import Path

log = logging.getLogger(__name__)

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
LAST_CAPABILITY = 63
CAPABILITY_VERSION_3 = 0x20080522

WORKING_BYTES = 2**30
"""Memory of a worker beyond its networks and decoding: tensors of a batch, and graphs compiled for all cores."""


def confine_process(*, decoding_bytes: int) -> None:
    """Take from this process what it does not need; for good.

    It writes no core dumps, which would contain photos; and, on Linux, it has no capabilities, gets no new privileges
    by running programs, and no more memory than it should ever need.

    Args:
        decoding_bytes: Memory for decoding.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    # Not RLIMIT_AS: address space that threads and allocators reserve is no memory.
    limit = _count_private_bytes() + decoding_bytes + WORKING_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        for capability in range(LAST_CAPABILITY + 1):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        log.warning("a worker could not give up new privileges: error %d", ctypes.get_errno())


def _count_private_bytes() -> int:
    """Return the writable private memory of this process, which RLIMIT_DATA bounds."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
