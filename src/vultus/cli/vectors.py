"""`vultus import-vectors`: persons from a file of vectors, in batches, resumable."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import BadZipFile

import numpy as np
import typer
from numpy.typing import NDArray

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    Evidence,
    Expires,
    JsonOption,
    Purpose,
    RecordedBy,
    load_settings,
    open_progress_bar,
    out,
    print_json,
    run_command,
)
from vultus.cli.opening import open_services
from vultus.errors import InvalidInputError
from vultus.services.enrolment.bulk import MAX_ROWS, VectorBatch, find_repeated_rows
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.services.wiring import Services
    from vultus.settings import Settings

MAX_CONCURRENT_BATCHES = 2
"""One batch is prepared while the database writes the other; writers of one collection are serialized."""


@dataclass(frozen=True)
class VectorFile:
    """Contents of a file: a vector, an external id and a name per row."""

    space_id: str
    vectors: NDArray[Any]
    external_ids: list[str]
    names: list[str | None]


def import_vectors(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An .npz file.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    expires: Expires = None,
    evidence: Evidence = None,
    collection: CollectionOption = "default",
    resume: Annotated[bool, typer.Option(help="Leave out persons whose external id the collection has.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Register persons from vectors made elsewhere.

    They come from the collection's network. The file holds `vectors` (n, d), `external_ids` (n), optionally `names`
    (n, empty for none), and `contract`, the id of the network's embedding space. Every consent is recorded with the
    same purpose. Nothing checks quality, liveness or lookalikes.
    """

    async def import_file() -> tuple[int, int]:
        vector_file = read_vector_file(file)
        consent = ConsentGrant(purpose, recorded_by, expires_at=expires, evidence_ref=evidence)
        whole = VectorBatch(
            collection,
            vector_file.space_id,
            vector_file.external_ids,
            vector_file.names,
            vector_file.vectors,
            consent,
            skip_known=resume,
        )
        if repeated_rows := find_repeated_rows(whole.external_ids):
            raise InvalidInputError(
                f"{file.name}: row {repeated_rows[0]}, counted from 0, has the external id of an earlier row."
            )
        return await _import_batches(settings, whole, show=not as_json)

    settings = load_settings()
    registered, known = run_command(import_file())
    if as_json:
        print_json({"registered": registered, "known": known})
    else:
        out.print(f"{registered} persons were registered; {known} were there before.")


def read_vector_file(file: Path) -> VectorFile:
    """Read and validate a file of vectors.

    Raises:
        InvalidInputError: It is not such a file, or a row of it cannot be used.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            vectors, external_ids = arrays["vectors"], arrays["external_ids"].tolist()
            names: list[str | None] = (
                [name or None for name in arrays["names"].tolist()] if "names" in arrays else [None] * len(vectors)
            )
            space_id = str(arrays["contract"].item())
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        raise InvalidInputError(
            f"{file.name} is not an .npz file with the arrays vectors, external_ids and contract, and optionally names "
            f"({type(error).__name__})."
        ) from None
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not len(vectors) == len(external_ids) == len(names):
        raise InvalidInputError(
            f"{file.name}: vectors must be (n, d) floating-point numbers, external_ids and names n texts; they are "
            f"{vectors.shape} {vectors.dtype}, {len(external_ids)} and {len(names)}."
        )
    if not external_ids:
        raise InvalidInputError(f"{file.name} holds no vectors: nobody was registered.")
    _require_strings("external_ids", external_ids)
    _require_strings("names", [name or "" for name in names])
    return VectorFile(space_id, vectors, external_ids, names)


def _require_strings(name: str, values: Sequence[object]) -> None:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise InvalidInputError(f"{name}, row {row}, counted from 0: must be a text, not {type(value).__name__}.")


async def _import_batches(settings: Settings, whole: VectorBatch, *, show: bool) -> tuple[int, int]:
    """Return how many persons were registered and how many were known."""
    registered = known = 0
    waiting = _split_batches(whole)
    with open_progress_bar(show=show) as progress:
        bar = progress.add_task("persons", total=len(whole.vectors))

        async def register_batches(services: Services) -> None:
            nonlocal registered, known
            for batch in waiting:
                done = await services.bulk_registrar.register(COMMAND_LINE, batch)
                registered, known = registered + done.registered, known + done.known
                progress.advance(bar, len(batch.vectors))

        async with open_services(settings) as services, asyncio.TaskGroup() as group:
            for _ in range(MAX_CONCURRENT_BATCHES):
                group.create_task(register_batches(services))
    return registered, known


def _split_batches(whole: VectorBatch) -> Iterator[VectorBatch]:
    for start in range(0, len(whole.vectors), MAX_ROWS):
        rows = slice(start, start + MAX_ROWS)
        yield replace(
            whole,
            external_ids=whole.external_ids[rows],
            names=whole.names[rows],
            vectors=whole.vectors[rows],
            first_row=start,
        )
