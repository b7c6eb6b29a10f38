"""Digests and atomic writes of files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def compute_sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def compute_file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal, without reading it into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing, even after a crash."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)  # noqa: PTH105 - the name of an open temporary file
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
