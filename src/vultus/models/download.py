"""Downloads that go on where they were cut off, through proxies, from http, https and file addresses.

A part of a file is only continued when the server says it is still the same file (RFC 9110, sections 13.1.5 and 14.2).
What was downloaded is not trusted here: whoever asked for it compares digests.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from vultus import __version__
from vultus.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Told (bytes here, bytes in all if known) after every piece."""

ATTEMPTS = 5
PAUSE_S = 1.0
PIECE = 2**18
SCHEMES = {"http", "https", "file"}


class _TooLongError(Exception):
    """The file is longer than it may be."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but never from https to what anybody on the way could change."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Return the request for where a redirect leads."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in {"http", "https"} or (before == "https" and after != "https"):
            raise HTTPError(req.full_url, code, f"redirected to {after}, which is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, part: Path, *, limit: int, timeout_s: float, progress: Progress) -> None:
    """Fetch an address into a file, going on where an earlier call stopped; a cut connection is tried again.

    The proxies of the environment are used: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.

    Args:
        url: An http, https or file address.
        part: Where to; left as it is when the download fails, so that another call goes on with it.
        limit: Most bytes; more than expected is not read.
        timeout_s: Longest silence of the server.
        progress: Told after every piece.

    Raises:
        WeightsError: The server refuses, sends too much, or the connection fails again and again.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise WeightsError(f"{url} is no http, https or file address.")
    for tries_left in reversed(range(ATTEMPTS)):
        try:
            _fetch(url, part, limit=limit, timeout_s=timeout_s, progress=progress)
        except _TooLongError as error:
            part.unlink(missing_ok=True)
            raise WeightsError(f"{url} sends more than {limit} bytes; it is not the file wanted.") from error
        except (OSError, HTTPException) as error:
            if not tries_left or not _passing(error):
                raise WeightsError(
                    f"{url} cannot be downloaded: {_reason(error)}. Check the network and HTTPS_PROXY, set "
                    "VULTUS_MODELS__MIRROR, or get the file another way and `vultus models import` it."
                ) from error
            log.info("download cut off (%s); going on", _reason(error))
            time.sleep(PAUSE_S)
        else:
            return


def _fetch(url: str, part: Path, *, limit: int, timeout_s: float, progress: Progress) -> None:
    validator = part.with_suffix(part.suffix + ".json")
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"vultus/{__version__}", "Accept-Encoding": "identity"}
    tag = _tag(validator, url) if have else None
    if tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    try:
        answer = build_opener(_Redirects()).open(Request(url, headers=headers), timeout=timeout_s)  # noqa: S310 - checked
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # longer than the file: start over with the next attempt
        raise
    with answer:
        goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise OSError("the server sent another part than asked for")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        validator.write_text(json.dumps({"url": url, "etag": answer.headers.get("ETag")}), encoding="utf-8")
        if have + int(length or 0) > limit:
            raise _TooLongError
        with part.open("ab" if goes_on else "wb") as file:
            while piece := answer.read(PIECE):
                have += len(piece)
                if have > limit:
                    raise _TooLongError
                file.write(piece)
                progress(have, total)
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")
    validator.unlink()


def _tag(validator: Path, url: str) -> str | None:
    """Return the strong entity tag an earlier attempt was answered with; a weak one does not promise equal bytes."""
    try:
        seen = json.loads(validator.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    tag: str | None = seen["etag"] if seen["url"] == url else None
    return None if tag is None or tag.startswith("W/") else tag


def _passing(error: OSError | HTTPException) -> bool:
    """Say whether trying again may help."""
    if isinstance(error, HTTPError):
        return error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code in {
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            HTTPStatus.TOO_MANY_REQUESTS,
        }
    return not (isinstance(error, URLError) and isinstance(error.reason, FileNotFoundError | PermissionError))


def _reason(error: Exception) -> str:
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return str(error.reason)
    return str(error) or repr(error)
