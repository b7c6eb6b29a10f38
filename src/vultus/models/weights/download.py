"""Fetching published weights: resumed where the connection broke, verified before they are placed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from vultus import __version__
from vultus.errors import DownloadError, WeightsError
from vultus.models.weights.files import sha256_of_file
from vultus.models.weights.store import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse

    from vultus.models.catalog.entries import Archive, PublishedFile
    from vultus.models.weights.store import WeightsStore

CHUNK = 2**18
MOST_BYTES = 2 * 2**30
"""No weights of the catalogue are larger; a server that sends more is stopped."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to other web addresses, but never from https to what anybody on the way could change."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Return the request for where a redirect leads."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in {"http", "https"} or (before == "https" and after == "http"):
            raise HTTPError(
                req.full_url, code, f"and leads from {before} to {after}, which is not followed", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


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

    def pull(self, file: PublishedFile, *others: PublishedFile) -> list[str]:
        """Fetch, verify and place weights; return the SHA-256 of each.

        What arrived before a failure stays in the folder and is continued next time.

        Args:
            file: What to fetch.
            others: Further files of the same archive, taken out of it while it is here.

        Raises:
            DownloadError: The server cannot be reached, refuses, or nobody publishes the file.
            WeightsError: What arrived is not what was published; nothing was placed.
        """
        folder = self._store.writable_folder()
        url = file.archive.url if file.archive else file.url
        if url is None:
            raise DownloadError(
                f"Nobody publishes {file.filename} at a stable address. Get it from its authors, then run: "
                f"vultus models import FILE --as {file.filename}"
            )
        part = folder / f".{_name(url)}.part"
        with _alone(folder / f".{_name(url)}.lock"):
            files = (file, *others)
            if all(self._store.state(one) is State.PRESENT for one in files):
                return [self._store.digest(one) for one in files]
            self._fetch(url, part)
            try:
                if file.archive is None:
                    return [self._store.put(file, part)]
                _check(part, file.archive)
                return [self._take_out(one, part, folder) for one in files]
            finally:
                # Whole, so placed or wrong: a wrong one must not be continued.
                part.unlink(missing_ok=True)

    def _take_out(self, file: PublishedFile, archive: Path, folder: Path) -> str:
        member = file.archive.member if file.archive else file.filename
        with unpacked(archive, member, folder) as content:
            return self._store.put(file, content)

    def _fetch(self, url: str, part: Path) -> None:
        """Bring `part` up to the whole file; a part is continued only where the server vouches for the same file."""
        where = f"{self._mirror.rstrip('/')}/{_name(url)}" if self._mirror else url
        if urlsplit(where).scheme not in {"http", "https"}:
            raise DownloadError(f"{where} is no http or https address; check VULTUS_MODELS__MIRROR.")
        tag = part.with_suffix(".etag")
        held = part.stat().st_size if part.exists() and tag.exists() else 0
        headers = {"User-Agent": f"vultus/{__version__}", "Accept-Encoding": "identity"}
        try:
            if held:
                headers |= {"Range": f"bytes={held}-", "If-Range": tag.read_text(encoding="ascii")}
            request = Request(where, headers=headers)  # noqa: S310 - checked above
            # Made anew each time, so that it knows the proxies of now.
            with build_opener(_Redirects).open(request, timeout=self._timeout_s) as answer:
                self._write(answer, part, tag, held)
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held:
                tag.unlink()
                return self._fetch(url, part)
            raise DownloadError(f"{where} answered {error.code} {error.reason}.") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(
                f"{where} could not be fetched: {error}. What arrived is kept; pull again to go on. Behind a proxy set "
                "HTTPS_PROXY, for a mirror VULTUS_MODELS__MIRROR, and without a connection use vultus models import."
            ) from error
        tag.unlink(missing_ok=True)
        return None

    def _write(self, answer: HTTPResponse, part: Path, tag: Path, held: int) -> None:
        """Write an answer to `part`: behind what is held when it continues that, else in its place."""
        continues = answer.status == HTTPStatus.PARTIAL_CONTENT
        if continues and not answer.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
            tag.unlink(missing_ok=True)
            raise OSError("the server sent another part than asked for")
        done = held if continues else 0
        length = answer.headers.get("Content-Length")
        whole = done + int(length) if length else None
        if not continues:
            # A weak tag does not promise equal bytes (RFC 9110, section 13.1.5): such a part is never continued.
            tag.unlink(missing_ok=True)
            etag = answer.headers.get("ETag", "")
            if etag.isascii() and etag.startswith('"'):
                tag.write_text(etag, encoding="ascii")
        with part.open("ab" if done else "wb") as file:
            while chunk := answer.read(CHUNK):
                done += len(chunk)
                if done > MOST_BYTES:
                    part.unlink()
                    raise DownloadError(f"The server sent more than {MOST_BYTES:,} bytes; that is none of the weights.")
                file.write(chunk)
                self._progress(part.name.strip(".").removesuffix(".part"), done, whole)
            file.flush()
            os.fsync(file.fileno())
        if whole is not None and done < whole:
            raise OSError(f"the connection ended after {done:,} of {whole:,} bytes")


def _name(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1]


def _check(path: Path, archive: Archive) -> None:
    found = sha256_of_file(path)
    if found != archive.sha256:
        raise WeightsError(
            f"{_name(archive.url)} was refused: its SHA-256 is {found}, not {archive.sha256}; nothing was placed."
        )


@contextmanager
def unpacked(path: Path, member: str, folder: Path) -> Iterator[Path]:
    """Give a member of a zip archive, found by the last part of its name, as a file that is gone afterwards.

    Only the bytes are taken: where the archive says they belong does not matter.

    Raises:
        WeightsError: It is no zip archive, has no such member, or the member is larger than any weights.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".unpacked") as scratch:
        target = Path(scratch) / "member"
        try:
            with zipfile.ZipFile(path) as opened:
                inside = [entry for entry in opened.infolist() if entry.filename.rsplit("/", 1)[-1] == member]
                if len(inside) != 1 or inside[0].file_size > MOST_BYTES:
                    raise WeightsError(f"The archive does not hold one file {member} of a believable size.")
                with opened.open(inside[0]) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
        except zipfile.BadZipFile as error:
            raise WeightsError(f"The archive with {member} is no zip file: {error}.") from error
        yield target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time fetch a file; the next one finds it placed."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
