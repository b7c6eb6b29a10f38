"""Fetching published weights: resumed where the connection broke, verified before they are placed."""

from __future__ import annotations

import fcntl
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vultus import __version__
from vultus.errors import DownloadError, WeightsError
from vultus.models.files import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vultus.models.catalog.entries import Archive, PublishedFile
    from vultus.models.store import WeightsStore

CHUNK = 2**18
MOST_BYTES = 2 * 2**30
"""No weights of the catalogue are larger; a server that sends more is stopped."""


class Downloader:
    """Fetches files into a store; proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    Args:
        store: Where they go.
        mirror: A base URL that is asked instead of the publisher, for the file's (or archive's) own name.
        timeout_s: Longest silence of a server.
        progress: Told the name, the bytes there, and the bytes in all where the server says.
    """

    def __init__(
        self,
        store: WeightsStore,
        *,
        mirror: str | None = None,
        timeout_s: float = 30,
        progress: Callable[[str, int, int | None], None] = lambda _name, _done, _all: None,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._timeout_s = timeout_s
        self._progress = progress

    def pull(self, file: PublishedFile) -> str:
        """Fetch, verify and place weights; return their SHA-256.

        What arrived before a failure stays in the folder and is continued next time.

        Raises:
            DownloadError: The server cannot be reached, refuses, or nobody publishes the file.
            WeightsError: What arrived is not what was published; nothing was placed.
        """
        folder = self._store.folder
        if folder is None:
            raise WeightsError("There is no models folder to place weights in.")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = file.archive.url if file.archive else file.url
        if url is None:
            raise DownloadError(
                f"Nobody publishes {file.filename} at a stable address. Get it from its authors, then run: "
                f"vultus models import FILE --as {file.filename}"
            )
        part = folder / f".{_name(url)}.part"
        with _alone(folder / f".{_name(url)}.lock"):
            self._fetch(url, part)
            try:
                if file.archive is None:
                    return self._store.put(file, part)
                member = _unpack(part, file.archive, folder)
                try:
                    return self._store.put(file, member)
                finally:
                    member.unlink(missing_ok=True)
            finally:
                # Whole, so placed or wrong: a wrong one must not be continued.
                part.unlink(missing_ok=True)

    def _fetch(self, url: str, part: Path) -> None:
        """Bring `part` up to the whole file."""
        where = f"{self._mirror.rstrip('/')}/{_name(url)}" if self._mirror else url
        tag = part.with_suffix(".etag")
        held = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": f"vultus/{__version__}", "Accept-Encoding": "identity"}
        if held and tag.exists():
            headers |= {"Range": f"bytes={held}-", "If-Range": tag.read_text(encoding="ascii")}
        try:
            request = urllib.request.Request(where, headers=headers)  # noqa: S310 - checked below
            if urlsplit(where).scheme not in {"http", "https"}:
                raise DownloadError(f"{where} is no http or https address; check VULTUS_MODELS__MIRROR.")
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310 - checked above
                continues = answer.status == HTTPStatus.PARTIAL_CONTENT
                start = held if continues else 0
                length = answer.headers.get("Content-Length")
                whole = start + int(length) if length else None
                etag = answer.headers.get("ETag", "")
                if etag.isascii() and not etag.startswith("W/"):
                    tag.write_text(etag, encoding="ascii")
                self._write(answer, part, start, whole)
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{where} answered {error.code} {error.reason}.") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(
                f"{where} could not be fetched: {error}. What arrived is kept; pull again to go on. Behind a proxy set "
                "HTTPS_PROXY, for a mirror VULTUS_MODELS__MIRROR, and without a connection use vultus models import."
            ) from error
        tag.unlink(missing_ok=True)

    def _write(self, answer: object, part: Path, start: int, whole: int | None) -> None:
        done = start
        with part.open("ab" if start else "wb") as file:
            while chunk := answer.read(CHUNK):  # type: ignore[attr-defined]
                done += len(chunk)
                if done > MOST_BYTES:
                    raise DownloadError(f"The server sent more than {MOST_BYTES:,} bytes; that is none of the weights.")
                file.write(chunk)
                self._progress(part.name.strip(".").removesuffix(".part"), done, whole)
            file.flush()
            os.fsync(file.fileno())
        if whole is not None and done < whole:
            raise OSError(f"the connection ended after {done:,} of {whole:,} bytes")


def _name(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1]


def _unpack(path: Path, archive: Archive, folder: Path) -> Path:
    """Return a temporary file with the archive's member, after comparing the archive's SHA-256."""
    found = sha256_of_file(path)
    if found != archive.sha256:
        raise WeightsError(
            f"{_name(archive.url)} was refused: its SHA-256 is {found}, not {archive.sha256}; nothing was placed."
        )
    return unpack_member(path, archive.member, folder)


def unpack_member(path: Path, member: str, folder: Path) -> Path:
    """Return a temporary file with a member of a zip archive, found by the last part of its name.

    Only the bytes are taken: where the archive says they belong does not matter.

    Raises:
        WeightsError: It is no zip archive, has no such member, or the member is larger than any weights.
    """
    target = folder / f".{member}.member"
    try:
        with zipfile.ZipFile(path) as opened:
            inside = [entry for entry in opened.infolist() if entry.filename.rsplit("/", 1)[-1] == member]
            if len(inside) != 1 or inside[0].file_size > MOST_BYTES:
                raise WeightsError(f"The archive does not hold one file {member} of a believable size.")
            with opened.open(inside[0]) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"The archive with {member} is no zip file: {error}.") from error
    return target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time fetch a file; the next one finds it placed and fetches it again only if asked to."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
