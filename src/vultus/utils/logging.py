"""Log lines as text or JSON, each with the id of its request.

Nothing biometric is ever logged: no image, no vector, no name; ids only. Of what this program or a library passes as
`extra`, a line has the keys of `EXTRA_KEYS` alone.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from traceback import format_exception
from typing import TYPE_CHECKING, Any, Literal

from vultus.errors import VultusError
from vultus.utils.characters import escape_text
from vultus.utils.request_scope import get_request_id

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRA_KEYS = (
    *("method", "route", "status", "ms", "code", "cause", "key", "client"),
    *("job", "count", "collection", "faces", "webhook"),
)
"""Keys of `extra` that a line may have, in its order: ids, counts, durations, codes, routes, names of jobs.

`cause` is the detail of an error that lies in the server, `key` the id of an API key, `client` an address.
"""


_WORD = re.compile(r"[\w./:{}%+-]+")


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Write records at or above `level` to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(style))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("uvicorn", "sqlalchemy", "sse_starlette", "httpcore", "alembic", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # What a line does not have need not be looked for: names of threads, processes and tasks.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined, unused-ignore]  # from Python 3.12 on


class LineFormatter(logging.Formatter):
    """Formats a record as one line of text, with the trace of an error below it, or as a JSON object."""

    def __init__(self, style: Literal["text", "json"]) -> None:
        super().__init__()
        self._is_json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        entry = _build_entry(record)
        return json.dumps(entry) if self._is_json else _render_text(entry)


def _build_entry(record: logging.LogRecord) -> dict[str, Any]:
    """Return the members of a line; of the extra, words and numbers only: a list could be a vector."""
    entry: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "request_id": get_request_id(),
        "message": record.getMessage(),
    }
    extra = record.__dict__
    entry |= {key: extra[key] for key in EXTRA_KEYS if isinstance(extra.get(key), (str, int, float))}
    if record.exc_info and (error := record.exc_info[1]):
        entry["trace"] = _format_trace(error)
    return entry


def _render_text(entry: dict[str, Any]) -> str:
    extra = "".join(f" {key}={_quote_text(entry[key])}" for key in EXTRA_KEYS if key in entry)
    trace = "".join(f"\n{escape_text(line)}" for line in entry.get("trace", "").splitlines())
    head = f"{entry['at']} {entry['level']:<7} {entry['logger']} {entry['request_id']}"
    return f"{head} {escape_text(entry['message'])}{extra}{trace}"


def _quote_text(value: object) -> object:
    return json.dumps(value) if isinstance(value, str) and not _WORD.fullmatch(value) else value


def _format_trace(error: BaseException) -> str:
    """Format an exception with its causes; of errors of our own, whose details are for the caller, only the code."""
    trace = "".join(format_exception(error)).rstrip("\n")
    for cause in _walk_causes(error):
        if isinstance(cause, VultusError) and cause.detail:
            trace = trace.replace(cause.detail, cause.code)
    return trace


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    for cause in (error.__cause__ or error.__context__, *getattr(error, "exceptions", ())):
        if cause is not None:
            yield from _walk_causes(cause)
