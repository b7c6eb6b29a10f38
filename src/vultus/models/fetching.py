"""Weights into the models folder: downloaded, unpacked or imported, compared with their digest, then placed whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from vultus.errors import InvalidInputError, WeightsError
from vultus.models.catalog.entries import Archive, DownloadedFile
from vultus.models.catalog.packs import NETWORKS
from vultus.models.download import PIECE, Progress, download

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vultus.models.catalog.entries import Network
    from vultus.models.store import WeightsStore
    from vultus.settings import ModelSettings

MAX_BYTES = 2 * 2**30
"""Most bytes of a file or archive whose size is not known beforehand."""

Watch = Callable[[str], Progress]
"""Told the name of what is about to be downloaded; returns what is told how far it is."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A file that was placed.

    Attributes:
        pinned: Whether no source states its digest, so that this one holds from here on.
    """

    network: str
    filename: str
    sha256: str
    pinned: bool


class Fetcher:
    """Fills a store.

    Args:
        store: Where files are placed.
        settings: Mirror and timeout.
        watch: Follows downloads.
    """

    def __init__(
        self, store: WeightsStore, settings: ModelSettings, watch: Watch = lambda _name: lambda _here, _all: None
    ) -> None:
        self._store = store
        self._mirror = settings.mirror
        self._timeout_s = settings.timeout_s
        self._watch = watch
        self._folder = store.records.folder / "weights"

    def pull(self, networks: Iterable[Network]) -> list[Placed]:
        """Download what is missing or damaged of some networks. Two processes take turns.

        Raises:
            LicenceError: A licence forbids the use, or was not accepted; nothing is downloaded.
            WeightsError: A file cannot be downloaded, or is not the published one; it is not placed.
        """
        wanted = {network.name: network for network in networks}.values()
        for network in wanted:
            self._store.permit(network)
        placed: list[Placed] = []
        with self._alone():
            archives: dict[str, Path] = {}
            try:
                for network in wanted:
                    for file in _downloaded(network):
                        if self._store.state(file) != "present":
                            placed.append(self._pull(network, file, archives))
            finally:
                for path in archives.values():
                    path.unlink(missing_ok=True)
        return placed

    def take(self, path: Path, network: Network | None = None) -> list[Placed]:
        """Import a file: weights, or an archive that holds some. It is copied.

        Args:
            path: The file.
            network: What it is; needed where no digest says so.

        Raises:
            InvalidInputError: The file is not known, or is not that network's.
            LicenceError: The licence forbids the use, or was not accepted.
            WeightsError: The file cannot be read.
        """
        with self._alone():
            sha256 = _digest(path)
            found = self._known(path, sha256) if network is None else [(network, _one_file(network, path, sha256))]
            for one, _ in found:
                self._store.permit(one)
            return [self._import(one, file, path, sha256) for one, file in found]

    def recognise(self, path: Path) -> list[Network]:
        """Return the networks whose weights a file is or, as an archive, holds, by its digest.

        Raises:
            InvalidInputError: The file is not known.
            WeightsError: The file cannot be read.
        """
        with self._alone():
            return [network for network, _ in self._known(path, _digest(path))]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from placing files; a full or closed disk becomes an error for people."""
        try:
            with self._store.records.locked("pull"):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                yield
        except OSError as error:
            raise WeightsError(f"{error.filename or self._folder}: {error.strerror or error}.") from error

    def _pull(self, network: Network, file: DownloadedFile, archives: dict[str, Path]) -> Placed:
        part = self._part(file.filename)
        if self._mirror:
            source = f"{self._mirror.rstrip('/')}/{file.filename}"
            self._download(source, part, file.filename, file.size)
        elif file.archive:
            source = file.archive.url
            if source not in archives:
                archives[source] = self._pull_archive(file.archive)
            unpack(archives[source], file.archive.member, part, limit=file.size or MAX_BYTES)
        elif file.url:
            source = file.url
            self._download(source, part, file.filename, file.size)
        else:
            raise WeightsError(
                f"{network.name} cannot be downloaded: its authors keep {file.filename} where only a person can fetch "
                f"it ({network.licence.url}). Then: vultus models import {file.filename} --as {network.name}"
            )
        return self._place(network, file, part, source)

    def _pull_archive(self, archive: Archive) -> Path:
        name = PurePosixPath(urlsplit(archive.url).path).name
        part = self._part(name)
        self._download(archive.url, part, name, None)
        _compare(part, archive.sha256, archive.url)
        return part

    def _download(self, url: str, part: Path, name: str, size: int | None) -> None:
        download(url, part, limit=size or MAX_BYTES, timeout_s=self._timeout_s, progress=self._watch(name))

    def _import(self, network: Network, file: DownloadedFile, path: Path, sha256: str) -> Placed:
        part = self._part(file.filename)
        if file.archive and sha256 == file.archive.sha256:
            unpack(path, file.archive.member, part, limit=file.size or MAX_BYTES)
        else:
            shutil.copyfile(path, part)
        return self._place(network, file, part, path.name)

    def _place(self, network: Network, file: DownloadedFile, part: Path, source: str) -> Placed:
        """Compare a file's digest, write it down and move the file to its place."""
        expected = self._store.sha256(file)
        sha256 = _compare(part, expected, source, recorded=file.sha256 is None)
        # Written down first: a file in place without a record would not be trusted, a record without a file is no harm.
        self._store.records.note(file.filename, sha256, source=source)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(self._store.path(file))
        return Placed(network.name, file.filename, sha256, pinned=expected is None)

    def _known(self, path: Path, sha256: str) -> list[tuple[Network, DownloadedFile]]:
        found = [
            (network, file)
            for network in NETWORKS.values()
            for file in _downloaded(network)
            if sha256 in {self._store.sha256(file), file.archive.sha256 if file.archive else None}
        ]
        if not found:
            raise InvalidInputError(
                f"{path} has SHA-256 {sha256}, which is no known network's. Where the digest of a network is not "
                "published, say which one it is: vultus models import FILE --as NAME"
            )
        return found

    def _part(self, name: str) -> Path:
        return self._folder / f".{name}.part"


def unpack(archive: Path, member: str, target: Path, *, limit: int) -> None:
    """Write one member of a ZIP file to a file of the caller's choice.

    The archive decides neither where anything is written nor how much: its names are only looked at.

    Args:
        archive: The ZIP file.
        member: File name, in whatever folder of the archive.
        target: Where to write.
        limit: Most bytes.

    Raises:
        WeightsError: The archive is damaged, has no such member, or one that is too large.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            names = [name for name in packed.namelist() if PurePosixPath(name).name == member]
            if len(names) != 1:
                raise WeightsError(f"{archive.name} holds {len(names)} files named {member}, where one is expected.")
            with packed.open(names[0]) as source, target.open("wb") as written:
                _copy(source, written, limit, f"{member} of {archive.name}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise WeightsError(f"{archive.name} cannot be unpacked: {error}.") from error


def _copy(source: IO[bytes], target: IO[bytes], limit: int, what: str) -> None:
    left = limit
    while piece := source.read(PIECE):
        left -= len(piece)
        if left < 0:
            raise WeightsError(f"{what} is larger than {limit} bytes; it is not the file wanted.")
        target.write(piece)


def _compare(part: Path, expected: str | None, source: str, *, recorded: bool = False) -> str:
    found = _digest(part)
    if expected is not None and found != expected:
        part.unlink()
        raise WeightsError(
            f"What {source} gave is not the expected file and was thrown away: its SHA-256 is {found}, expected "
            f"{expected}, {'as recorded when it was first placed' if recorded else 'as published'}. It was changed on "
            f"the way, or its publisher replaced it{'; to take the new one, remove it from manifest.json' * recorded}."
        )
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _downloaded(network: Network) -> list[DownloadedFile]:
    return [file for file in network.files.values() if isinstance(file, DownloadedFile)]


def _one_file(network: Network, path: Path, sha256: str) -> DownloadedFile:
    """Return which of a network's files a file is."""
    files = _downloaded(network)
    if len(files) == 1:
        return files[0]
    for file in files:
        if sha256 == file.sha256 or path.name == file.filename:
            return file
    known = ", ".join(one.filename for one in files) or "it has none"
    raise InvalidInputError(f"{path.name} is none of the files of {network.name}: {known}.")
