"""Reads the members of a bundle in order, and checks who signed them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from vultus.errors import InvalidInputError, SignatureInvalidError
from vultus.sealing.signatures import verify_document
from vultus.services.bundles.records import (
    COUNTS,
    HEADER,
    KIND,
    PEOPLE,
    VECTORS,
    BundleCounts,
    BundledPerson,
    BundleHeader,
    parse_header,
    parse_people,
)
from vultus.utils.archives import open_archive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.domain import FloatArray
    from vultus.utils.archives import ArchiveReader


@dataclass(slots=True)
class BundleReading:
    """A bundle, read as often as needed; what is read again must be the same.

    Attributes:
        file: The bundle.
        identities: That may open it.
        signed_by: Public key of who must have signed it.
        progress: Called with the number of bytes just read.
        installation: Id of the installation that signed it, once all was read.
        header: Its header, once that was read.
    """

    file: Path
    identities: Sequence[Any]
    signed_by: str
    progress: Callable[[int], None]
    installation: UUID | None = None
    header: BundleHeader | None = None
    _digests: Mapping[str, str] | None = None
    _people: bytes | None = None
    _counts: BundleCounts | None = None

    def require_header(self) -> BundleHeader:
        """Return the header.

        Raises:
            InvalidInputError: None was read.
        """
        if self.header is None:
            raise InvalidInputError(f"{self.file} is no bundle of a collection.")
        return self.header

    def require_installation(self) -> UUID:
        """Return the id of the installation that signed the bundle, which was read to its end."""
        if self.installation is None:
            raise RuntimeError("the bundle was not read to its end")
        return self.installation

    async def read_parts(self) -> AsyncIterator[tuple[list[BundledPerson], FloatArray]]:
        """Yield persons with (n, d) the vectors of their faces, once the signature of all of it was checked.

        Raises:
            InvalidInputError: It is no bundle, or damaged.
            SignatureInvalidError: Another key signed it, or it was changed.
        """
        if self._digests is None:
            await self._verify()
        self._counts = None
        persons = consents = faces = 0
        with open_archive(self.file, self.identities, self._digests) as archive:
            members = archive.read_members()
            while (found := await asyncio.to_thread(next, members, None)) is not None:
                self.progress(len(found[1]))
                if (people := self._take(*found)) is not None:
                    persons += len(people[0])
                    consents += sum(len(person.consents) for person in people[0])
                    faces += len(people[1])
                    yield people
            self._check_signature(archive)
        self._check_end(BundleCounts(persons=persons, consents=consents, faces=faces))

    async def _verify(self) -> None:
        """Check who signed the bundle; nothing in it is looked at before."""
        with open_archive(self.file, self.identities) as archive:
            members = archive.read_members()
            while (found := await asyncio.to_thread(next, members, None)) is not None:
                self.progress(len(found[1]))
            self._check_signature(archive)
            self._digests = archive.found

    def _take(self, name: str, content: bytes) -> tuple[list[BundledPerson], FloatArray] | None:
        if self.header is None or name == HEADER:
            self.header = parse_header(content, str(self.file))
        elif name.startswith(PEOPLE):
            self._people = content
        elif name.startswith(VECTORS) and self._people is not None:
            people, self._people = self._people, None
            return parse_people(people, content, self.header.space.dimension, f"{self.file}, {name}")
        elif name == COUNTS:
            try:
                self._counts = msgspec.json.decode(content, type=BundleCounts)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise InvalidInputError(f"{self.file} has no counts: {error}.") from None
        else:
            raise InvalidInputError(f"{self.file} has a member '{name}', which no bundle has.")
        return None

    def _check_signature(self, archive: ArchiveReader) -> None:
        if archive.signature is None:
            raise SignatureInvalidError(f"{self.file} is not signed.")
        signed = verify_document(KIND, archive.signature, public_key=self.signed_by)
        if signed.content != {"digests_sha256": sha256(archive.digests).hexdigest()}:
            raise SignatureInvalidError(f"{self.file} is not what was signed.")
        self.installation = signed.installation_id

    def _check_end(self, found: BundleCounts) -> None:
        if self._counts != found or self._people is not None:
            raise InvalidInputError(
                f"{self.file} is half a bundle: it does not hold what its {COUNTS} says. Have it written anew."
            )
