"""The report of an import of a folder: one line per photo, from which the import goes on when it is run again."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from vultus.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vultus.services.enrolment.folders import LeftOut

FINAL_OUTCOMES = frozenset({"enrolled", "duplicate_photo"})
"""Outcomes of photos that are enrolled; any other one is a refusal, whose photo can be tried again."""

PASSING_OUTCOMES = frozenset(
    {
        *("unreadable", "worker_lost", "unavailable", "overloaded", "database_unavailable"),
        "enrolled_as_other_person",  # who may have been erased since
    }
)
"""Outcomes whose reason may go away: their photos are always tried again."""


@dataclass(frozen=True, slots=True)
class EarlierOutcome:
    """What became of a photo the last time it was tried, under which rules, and the file's stamp then."""

    outcome: str
    rules: str | None
    stamp: str | None


class ImportReport:
    """One line of JSON per photo, written as soon as its outcome is known.

    Lines are ASCII and appended whole; one that a crash cut off is left as it is and ignored. Only one import at a time
    writes a report.

    Attributes:
        outcomes: Of the photos of this run.
        retried: Photos of this run that were refused before.

    Args:
        path: Of the report; made if there is none.
        collection_id: Lines of a report that are about another collection do not count.
        stamps: What tells a changed file from an unchanged one, by photo; of photos that are not in the folder any more
            earlier outcomes do not count.
        rules: Digest of the rules of this run.
        terms: Digest of what the persons agreed to, under which a consent of an earlier run goes on.
        retry: Whether refused photos are tried again even under the same rules.

    Raises:
        OSError: It cannot be read or written.
        ConflictError: Another import writes it.
    """

    def __init__(
        self, path: Path, *, collection_id: UUID, stamps: Mapping[str, str], rules: str, terms: str, retry: bool
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.retried = 0
        self._collection = str(collection_id)
        self._stamps = stamps
        self._rules = rules
        self._terms = terms
        self._retry = retry
        self._stream = _open_report(path)
        self._earlier: dict[str, EarlierOutcome] = {}
        self._consents: dict[str, UUID] = {}
        self._left_out: set[tuple[str, str]] = set()
        for line in self._read_lines():
            self._add_earlier(line)
        self._forget_other_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    @property
    def skipped(self) -> int:
        """Photos with an outcome of an earlier run that were not tried again."""
        return len(self._earlier) - self.retried

    @property
    def refused_before(self) -> int:
        """Photos refused in an earlier run that were not tried again."""
        return sum(earlier.outcome not in FINAL_OUTCOMES for earlier in self._earlier.values()) - self.retried

    @property
    def refused(self) -> int:
        """Photos of this run that were not enrolled, and were not before."""
        return sum(count for outcome, count in self.outcomes.items() if outcome not in FINAL_OUTCOMES)

    def should_try(self, photo: str) -> bool:
        """Return whether a photo is new, or was refused and is to be tried again: changed, or under other rules."""
        earlier = self._earlier.get(photo)
        if earlier is None or earlier.outcome in PASSING_OUTCOMES:
            return True
        is_changed = earlier.rules != self._rules or earlier.stamp != self._stamps.get(photo)
        return earlier.outcome not in FINAL_OUTCOMES and (self._retry or is_changed)

    def is_enrolled(self, photo: str) -> bool:
        """Return whether a photo was enrolled by an earlier run."""
        return photo in self._earlier and self._earlier[photo].outcome in FINAL_OUTCOMES

    def find_consent(self, person: str) -> UUID | None:
        """Return the consent under which an earlier run with the same terms enrolled photos of a person."""
        return self._consents.get(person)

    def add_outcome(self, photo: str, outcome: str, **facts: Any) -> None:
        """Record the outcome of a photo."""
        run = {"collection_id": self._collection, "rules": self._rules, "terms": self._terms}
        self._write_line({"photo": photo, "stamp": self._stamps.get(photo), "outcome": outcome, **facts, **run})
        self.outcomes[outcome] += 1
        self.retried += photo in self._earlier

    def add_left_out(self, left_out: LeftOut) -> None:
        """Record what is not imported, once."""
        if (left_out.path, left_out.reason.value) not in self._left_out:
            self._write_line({"left_out": left_out.path, "reason": left_out.reason.value, "detail": left_out.detail})

    def _write_line(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line, default=str).encode() + b"\n")

    def _read_lines(self) -> Iterator[dict[str, Any]]:
        content = self._stream.read() or b""
        if content and not content.endswith(b"\n"):
            self._stream.write(b"\n")  # the end of a line that a crash cut off
        for text in content.split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line

    def _forget_other_files(self) -> None:
        """Leave photos that are gone, or were enrolled and are another file since, out of all counts."""
        self._earlier = {
            photo: earlier
            for photo, earlier in self._earlier.items()
            if photo in self._stamps and (earlier.outcome not in FINAL_OUTCOMES or earlier.stamp == self._stamps[photo])
        }

    def _add_earlier(self, line: dict[str, Any]) -> None:
        if isinstance(line.get("left_out"), str):
            self._left_out.add((line["left_out"], str(line.get("reason"))))
        if not isinstance(line.get("photo"), str) or not isinstance(line.get("outcome"), str):
            return
        if line.get("collection_id") != self._collection:
            return
        self._earlier[line["photo"]] = EarlierOutcome(line["outcome"], line.get("rules"), line.get("stamp"))
        if line.get("terms") == self._terms and "consent_id" in line and "person" in line:
            with contextlib.suppress(ValueError, AttributeError):
                self._consents[str(line["person"])] = UUID(line["consent_id"])


def _open_report(path: Path) -> io.FileIO:
    """Open a report for this process alone."""
    number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(22, "not a regular file", str(path))
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return io.FileIO(number, "r+")
    except OSError as error:
        os.close(number)
        if isinstance(error, BlockingIOError):
            raise ConflictError(f"Another import writes the report {path}; wait for it, or name another.") from None
        raise
