"""The form of log lines, and what can never be in one."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import pytest

import vultus
from vultus.errors import NoFaceFoundError
from vultus.utils.logging import EXTRA_KEYS, configure_logging
from vultus.utils.request_scope import RequestLimits, RequestScope

CANARY = "canary-7f3a"
SECRETS = {
    "image": b"\xff\xd8" + CANARY.encode(),
    "photo": CANARY.encode(),
    "vector": [0.25, CANARY],
    "embedding": np.full(4, 0.123456),
    "name": None,  # of a log record it is the logger's; `logging` itself refuses it
    "person": CANARY,
    "person_name": CANARY,
    "external_id": CANARY,
    "metadata": {"badge": CANARY},
    "file_name": CANARY,
    "path": Path(CANARY),
    "detail": CANARY,
    "candidates": [{"name": CANARY}],
    "color_message": CANARY,
}
Write = Callable[[Literal["text", "json"]], Callable[[], str]]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Configure logging to write to a stream; the function it returns reads what was written."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("uvicorn.access", "sqlalchemy", "alembic", "PIL")}

    def configure(style: Literal["text", "json"]) -> Callable[[], str]:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        root.handlers.clear()  # pytest's own must not be closed
        configure_logging("INFO", style)
        return stream.getvalue

    yield configure
    root.handlers[:], root.level = handlers, level
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


def test_a_text_line_has_time_level_logger_request_message_and_extra(write: Write) -> None:
    written = write("text")
    with RequestScope(RequestLimits(max_requests=1, max_bodies_bytes=1), "0d9f4c2a"):
        logging.getLogger("vultus.access").info(
            "done in %d", 3, extra={"route": "/v1/recognize", "status": 200, "ms": 1.5, "cause": "The disk\nis full."}
        )

    time, rest = written().split(" INFO", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", time)
    assert rest == (
        '    vultus.access 0d9f4c2a done in 3 route=/v1/recognize status=200 ms=1.5 cause="The disk\\nis full."\n'
    )


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_message_is_one_line_and_commands_no_terminal(write: Write, style: Literal["text", "json"]) -> None:
    written = write(style)

    logging.getLogger("vultus").info("the folder %s", "Zoë\n\x1b]0;\x9b31m\u202e", extra={"code": "a\x9b b"})

    (line,) = written().splitlines()
    assert line.isprintable()
    assert "Zoë" in (json.loads(line)["message"] if style == "json" else line)


def test_a_text_line_without_extra_ends_with_its_message(write: Write) -> None:
    written = write("text")

    logging.getLogger("vultus.jobs").warning("late")

    assert written().endswith(" WARNING vultus.jobs - late\n")


def test_a_json_line_has_the_same_members(write: Write) -> None:
    written = write("json")

    logging.getLogger("vultus.jobs").warning("job %s", "late", extra={"job": "expiry-sweep", "count": 2})

    line = json.loads(written())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("at"))
    assert line == {
        "level": "WARNING",
        "logger": "vultus.jobs",
        "request_id": "-",
        "message": "job late",
        "job": "expiry-sweep",
        "count": 2,
    }
    assert list(json.loads(written()))[:5] == ["at", "level", "logger", "request_id", "message"]


def _raise_chain(error: Exception) -> None:
    try:
        raise error
    except Exception as cause:
        raise RuntimeError("the search failed") from cause


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_line_holds_the_trace_of_its_exception(write: Write, style: Literal["text", "json"]) -> None:
    written = write(style)

    try:
        _raise_chain(ValueError("odd"))
    except RuntimeError as error:
        logging.getLogger("vultus").error("failed", exc_info=error)

    trace = json.loads(written())["trace"] if style == "json" else written().partition(" - failed\n")[2].rstrip("\n")
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "ValueError: odd\n" in trace
    assert trace.endswith("RuntimeError: the search failed")


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("logger", ["vultus.services.jobs", "uvicorn.error", "PIL.Image", "a.library"])
def test_no_extra_key_that_is_not_listed_reaches_a_line(
    write: Write, style: Literal["text", "json"], logger: str
) -> None:
    written = write(style)

    extra = {key: value for key, value in SECRETS.items() if value is not None}
    logging.getLogger(logger).warning("face rejected", extra=extra | {"count": 1})

    assert "face rejected" in written()
    assert "count" in written()
    assert CANARY not in written()
    assert "0.123456" not in written()
    assert not any(key in written() for key in extra)


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("value", [[0.123456], np.full(3, 0.123456), {"n": 0.123456}, b"0.123456", Path("0.123456")])
def test_a_listed_key_holds_a_word_or_a_number_only(write: Write, style: Literal["text", "json"], value: Any) -> None:
    written = write(style)

    logging.getLogger("vultus").warning("ready", extra={"faces": value, "count": 3})

    assert "0.123456" not in written()
    assert "count" in written()


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_own_exception_is_written_with_its_code_only(write: Write, style: Literal["text", "json"]) -> None:
    written = write(style)
    error = NoFaceFoundError(f"{CANARY}.jpg shows no face", filename=CANARY, external_id=CANARY)

    for failure in (error, ExceptionGroup("several", [error])):
        try:
            _raise_chain(failure)
        except RuntimeError as chained:
            logging.getLogger("vultus").error("failed", exc_info=chained)

    assert written().count("NoFaceFoundError: no_face") == 2
    assert CANARY not in written()


def _list_extra_keys() -> Iterator[str]:
    for path in Path(vultus.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("log."):
                for keyword in call.keywords:
                    if keyword.arg == "extra":
                        assert isinstance(keyword.value, ast.Dict)
                        yield from (str(key.value) for key in keyword.value.keys if isinstance(key, ast.Constant))


def test_every_key_that_is_logged_is_listed_and_every_listed_one_logged() -> None:
    assert set(_list_extra_keys()) == set(EXTRA_KEYS)


@pytest.mark.parametrize("exception", [None, (None, None, None)])
def test_a_line_without_an_exception_has_no_trace(write: Write, exception: Any) -> None:
    written = write("json")

    logging.getLogger("vultus").error("failed", exc_info=exception, extra={"job": str(uuid4())})

    assert "trace" not in json.loads(written())
