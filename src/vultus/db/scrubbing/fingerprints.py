"""Fingerprints: bytes that occur nowhere else, planted where personal data are stored, and searched for in files."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np

from vultus.db.tables import UNSAMPLED_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

CHUNK_BYTES = 8 * 2**20
MARKER_BYTES = 16
DIMENSION = 16
LONG_BYTES = 3_000
"""Of bytes planted where a column keeps long values in files of their own."""

PARTITION_PREFIX = "faces_"
PLANTED_COLUMNS = UNSAMPLED_COLUMNS | {"outbox": ("detail",)}
"""Where personal data are stored."""

_LIST_COLUMNS = """
    SELECT attname, format_type(atttypid, NULL), attstorage = 'e' FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = ''
        AND (attname = ANY($2::text[]) OR (attnotnull AND NOT atthasdef) OR $3)
"""
_FILLERS = {
    "halfvec": "'[1]'",
    "uuid": "gen_random_uuid()",
    "boolean": "true",
    "timestamp with time zone": "now()",
    "jsonb": "'{}'",
    "json": "'{}'",
}


class Fingerprints:
    """Fingerprints of one scrub: three markers of 16 random bytes, each followed by the number of its place.

    They are kept in memory only.
    """

    def __init__(self) -> None:
        self._text = secrets.token_hex(MARKER_BYTES // 2).encode()
        self._binary = secrets.token_bytes(MARKER_BYTES)
        draw = np.random.default_rng(secrets.randbits(64))
        self._vector = draw.uniform(-1, 1, MARKER_BYTES // 2).astype("<f2")
        self.places: list[str] = []

    @property
    def markers(self) -> tuple[bytes, bytes, bytes]:
        """What every fingerprint begins with: as text, as bytes, as numbers of 16 bits."""
        return self._text, self._binary, self._vector.tobytes()

    def make_value(self, place: str, kind: str, *, is_long: bool = False) -> Any:
        """Return a new fingerprint as a value of a type of PostgreSQL, in its text form but for bytes.

        Args:
            place: Where it is planted.
            kind: `text`, `json`, `jsonb`, `bytea` or `halfvec`.
            is_long: Whether more bytes follow than a row keeps beside its other values.
        """
        number = len(self.places)
        self.places.append(place)
        word = f"{self._text.decode()}{number:05d}"
        if kind == "bytea":
            return self._binary + number.to_bytes(4, "big") + secrets.token_bytes(LONG_BYTES if is_long else 4)
        if kind == "halfvec":
            # Each below 2,048, which a number of 16 bits holds exactly.
            rest = np.array([number // 1000, number % 1000, *range(DIMENSION - 2 - len(self._vector))], "<f2")
            return f"[{','.join(str(float(one)) for one in (*self._vector, *rest))}]"
        return f'{{"fingerprint": "{word}"}}' if kind.startswith("json") else word

    def find_places(self, content: bytes) -> Iterator[int]:
        """Yield the numbers of the places whose fingerprints occur in a stretch of a file, each as often as it does."""
        decoders: tuple[Callable[[bytes], int], ...] = (
            lambda after: int(after[:5]) if after[:5].isdigit() else -1,
            lambda after: int.from_bytes(after[:4], "big"),
            lambda after: int(np.frombuffer(after[:4], "<f2") @ np.array([1000, 1])),
        )
        for marker, decode in zip(self.markers, decoders, strict=True):
            at = content.find(marker)
            while at >= 0:
                after = content[at + len(marker) : at + len(marker) + 5]
                if len(after) == 5:
                    yield decode(after)
                at = content.find(marker, at + 1)


@dataclass(slots=True)
class ScanResult:
    """What a search of files came to.

    Attributes:
        files: How many were read.
        bytes: How much.
        found: Names of the files in which fingerprints are, by their place.
        unreadable: Names of files that could not be read.
    """

    files: int = 0
    bytes: int = 0
    found: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unreadable: list[str] = field(default_factory=list)


async def plant_fingerprints(
    connection: asyncpg.Connection, tables: Sequence[str], fingerprints: Fingerprints
) -> list[str]:
    """Write fingerprints into tables by a transaction that is rolled back, so that their files alone have them.

    Args:
        connection: Of a superuser: no trigger and no foreign key looks at the rows.
        tables: Partitions of faces by their own names.
        fingerprints: Are made.

    Returns:
        Columns with personal data whose constraints refused every row.
    """
    refused = []
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in tables:
            refused += await _plant_in_table(connection, table, fingerprints)
        number = fingerprints.make_value("write-ahead log", "text")
        await connection.execute("SELECT pg_logical_emit_message(false, 'vultus', $1)", number)
    finally:
        await transaction.rollback()
    await connection.execute("CHECKPOINT")  # into the files
    return refused


async def _plant_in_table(connection: asyncpg.Connection, table: str, fingerprints: Fingerprints) -> list[str]:
    """Plant in every column with personal data, in as few rows as its constraints allow; return columns refused."""
    wanted = PLANTED_COLUMNS.get("faces" if table.startswith(PARTITION_PREFIX) else table, ())
    without_one = (tuple(name for name in wanted if name != left_out) for left_out in wanted)
    missing = set(wanted)
    alone = [(name,) for name in wanted]
    for names, is_full in product((wanted, *without_one, *alone), (False, True)):
        if not missing & set(names):
            continue
        places = len(fingerprints.places)
        try:
            async with connection.transaction():
                await _plant_row(connection, table, names, fingerprints, is_full=is_full)
        except asyncpg.IntegrityConstraintViolationError:
            del fingerprints.places[places:]
        else:
            missing -= set(names)
    return [f"{table}.{name}" for name in sorted(missing)]


async def _plant_row(
    connection: asyncpg.Connection,
    table: str,
    planted: Sequence[str],
    fingerprints: Fingerprints,
    *,
    is_full: bool,
) -> None:
    """Add a row with fingerprints and whatever a row needs, in a full row optional values too."""
    columns, expressions, values = [], [], []
    for name, kind, is_long in await connection.fetch(_LIST_COLUMNS, table, list(planted), is_full):
        columns.append(f'"{name}"')
        if name in planted:
            values.append(fingerprints.make_value(f"{table}.{name}", kind, is_long=is_long))
            expressions.append(f"${len(values)}::{'bytea' if kind == 'bytea' else 'text'}::{kind}")
        elif name == "collection_id" and table.startswith(PARTITION_PREFIX):
            expressions.append(f"'{table.removeprefix(PARTITION_PREFIX)}'")
        else:
            expressions.append(_FILLERS.get(kind, f"'{{}}'::{kind}" if kind.endswith("[]") else f"'1'::{kind}"))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(expressions)})"  # noqa: S608  of catalogs
    await connection.execute(statement, *values)


def scan_files(folder: Path, fingerprints: Fingerprints, record_progress: Callable[[int], None]) -> ScanResult:
    """Search every file below a folder for fingerprints.

    A file that disappears meanwhile holds nothing any more.

    Args:
        folder: Of the database's files: tables, write-ahead log, temporary files, logs.
        fingerprints: Were planted.
        record_progress: Called with the bytes read so far.
    """
    result = ScanResult()
    overlap = MARKER_BYTES + 4
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        name = str(path.relative_to(folder))
        try:
            with path.open("rb") as file:
                before = b""
                while chunk := file.read(CHUNK_BYTES):
                    for number in fingerprints.find_places(before + chunk):
                        known = 0 <= number < len(fingerprints.places)
                        result.found[fingerprints.places[number] if known else "unknown"].add(name)
                    result.bytes += len(chunk)
                    before = chunk[-overlap:]
                    record_progress(result.bytes)
        except FileNotFoundError:
            continue
        except OSError:
            result.unreadable.append(name)
            continue
        result.files += 1
    return result
