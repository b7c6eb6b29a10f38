"""The chain of the audit record: each link holds a digest of its entry and of the link before."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.domain.records import AuditEntry

GENESIS = bytes(32)

MIN_KEPT = timedelta(days=30)
"""Shortest time for which entries are kept."""

LATE = timedelta(hours=1)
"""Longer than a transaction: what is linked so long after what is newer was not written at its time."""


@dataclass(frozen=True, slots=True)
class AuditLink:
    """A link of the chain.

    Attributes:
        number: From 1, without gaps.
        entry_id: Entry that it holds.
        at: Time of the entry; tells how old an entry was that is no longer kept.
        content: SHA-256 of the entry.
        digest: SHA-256 of all this and of the digest of the link before.
    """

    number: int
    entry_id: UUID
    at: datetime
    content: bytes
    digest: bytes


def compute_content(entry: AuditEntry) -> bytes:
    """Return the SHA-256 of an entry as the database returns it."""
    fields = {
        "id": str(entry.id),
        "at": format_moment(entry.at),
        "actor": entry.actor,
        "request_id": entry.request_id,
        "action": entry.action,
        "collection_id": entry.collection_id and str(entry.collection_id),
        "person_id": entry.person_id and str(entry.person_id),
        "object_id": entry.object_id and str(entry.object_id),
        "detail": entry.detail,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).digest()


def compute_digest(previous: bytes, number: int, entry_id: UUID, at: datetime, content: bytes) -> bytes:
    """Return the digest of a link after the digest of the one before."""
    head = f"{number} {entry_id} {format_moment(at)} ".encode()
    return hashlib.sha256(previous + head + content).digest()


def build_links(previous: AuditLink | None, entries: Iterable[AuditEntry]) -> list[AuditLink]:
    """Return the links that hold entries, in their order, after another link or as the first."""
    number, digest = (previous.number, previous.digest) if previous else (0, GENESIS)
    links = []
    for entry in entries:
        number, content = number + 1, compute_content(entry)
        digest = compute_digest(digest, number, entry.id, entry.at, content)
        links.append(AuditLink(number, entry.id, entry.at, content, digest))
    return links


def find_oldest_kept(trims: Iterable[AuditEntry]) -> datetime | None:
    """Return before which time entries were deleted for their age, by the entries that say so.

    One that would allow what is younger than `MIN_KEPT` to be missing was not written by the service.
    """
    times = ((datetime.fromisoformat(entry.detail["before"]), entry.at) for entry in trims)
    return max((before for before, at in times if before <= at - MIN_KEPT), default=None)


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What a check of the chain found.

    Attributes:
        links: Links that were read.
        unlinked: Entries that no link holds yet.
        findings: What is not as it was written, in sentences.
        oldest_kept: Before which time entries were deleted for their age; None if none were.
    """

    links: int
    unlinked: int
    findings: tuple[str, ...]
    oldest_kept: datetime | None = None


class ChainChecker:
    """Checks links and their entries in order.

    Args:
        oldest_kept: Entries before it were deleted for their age, as an entry says; None if none were.
        checkpoints: Numbers and digests of links, as they were noted outside the database, or signed.
    """

    def __init__(self, oldest_kept: datetime | None, checkpoints: Iterable[tuple[int, bytes]]) -> None:
        self._oldest_kept = oldest_kept
        self._checkpoints: dict[int, set[bytes]] = defaultdict(set)
        for number, digest in checkpoints:
            self._checkpoints[number].add(digest)
        self._digest = GENESIS
        self._newest: datetime | None = None
        self.number = 0
        self.findings: list[str] = []

    def check_link(self, link: AuditLink, entry: AuditEntry | None) -> None:
        """Check the next link and the entry that it holds; None if the entry is not there."""
        if link.number != self.number + 1:
            self.findings.append(f"links {self.number + 1} to {link.number - 1} are missing")
        elif link.digest != compute_digest(self._digest, link.number, link.entry_id, link.at, link.content):
            self.findings.append(f"link {link.number} was changed")
        if self._checkpoints.pop(link.number, {link.digest}) != {link.digest}:
            self.findings.append(f"link {link.number} is not the one that was noted outside the database")
        if self._newest and link.at < self._newest - LATE:
            self.findings.append(f"entry {link.entry_id} of {format_moment(link.at)} was added later")
        if entry is None:
            if self._oldest_kept is None or link.at >= self._oldest_kept:
                self.findings.append(f"entry {link.entry_id} of {format_moment(link.at)} was deleted")
        elif compute_content(entry) != link.content or entry.at != link.at:
            self.findings.append(f"entry {link.entry_id} of {format_moment(link.at)} was changed")
        self.number, self._digest, self._newest = link.number, link.digest, max(link.at, self._newest or link.at)

    def check_end(self, unlinked: Iterable[AuditEntry]) -> None:
        """Check that the chain is as long as it was noted to be, and that what it does not hold is new."""
        for entry in unlinked:
            if self._newest and entry.at < self._newest - LATE:
                self.findings.append(f"entry {entry.id} of {format_moment(entry.at)} was added later")
        if self._checkpoints:
            known = max(self._checkpoints)
            self.findings.append(
                f"the chain ends at link {self.number}, and link {known} was noted outside the database: its end was "
                "cut off, or the database was restored from a backup"
            )
