"""Sources as principals set them up: created, listed, read, changed, deleted; and a picture of one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from vultus.domain import Permission, Zone
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.domain.sources import SourceChanged, SourceCreated, SourceDeleted, SourceState
from vultus.domain.texts import require_text
from vultus.errors import AddressNotAllowedError, ConflictError, InvalidInputError, OverloadedError, UnavailableError
from vultus.services.secret_vault import SecretDamagedError
from vultus.sources.messages import FrameTaken
from vultus.sources.pool import DecoderPool, SourceOpening
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import IdempotencyContext, Principal
    from vultus.domain.sources import Source
    from vultus.services.secret_vault import SecretVault
    from vultus.services.sources.watching import SourceWatch
    from vultus.settings import SourceSettings

SNAPSHOT_TIMEOUT_S = 15.0
MAX_SNAPSHOTS = 4
"""Sources that are opened for a picture at a time."""

FRESH_S = 5.0
"""A frame of a source that is watched here is as good as one taken for the purpose for so long."""


class SourceService:
    """Manages sources, and takes pictures of them.

    Attributes:
        pool: Decodes sources; closed by the supervisor.
        watches: Of the sources that this server watches.
    """

    def __init__(self, database: Database, vault: SecretVault, settings: SourceSettings) -> None:
        self._database = database
        self._vault = vault
        self._settings = settings
        self.pool = DecoderPool(sources_per_process=settings.per_process)
        self._snapshots = 0
        self.watches: dict[UUID, SourceWatch] = {}

    async def create_source(
        self,
        principal: Principal,
        *,
        reference: str,
        name: str,
        address: str,
        zones: list[list[tuple[float, float]]] | None = None,
        idempotency: IdempotencyContext | None = None,
        **options: Any,
    ) -> Source:
        """Set up a source, which is watched from now on for the principal's key.

        Args:
            principal: The caller.
            reference: Id or name of the collection whose persons are looked for.
            name: For people to read.
            address: URL or path; see `SourceAddress`.
            zones: Polygons in shares of width and height; where faces count.
            idempotency: Of an idempotent request.
            **options: `min_face_px`, `fps`, `idle_fps`, `enabled`.

        Raises:
            AddressNotAllowedError: The operator has not allowed the address.
            ForbiddenError: The caller may not configure collections or recognise people in live video.
            InvalidInputError: The address is none, or a zone is no polygon.
            KeyRingError: The key that seals the address is not available.
            NotFoundError: There is no such collection.
        """
        principal.require(Permission.LIVE)
        source_id = new_id()
        name = require_text("name", name)
        _require_zones(zones or [])
        async with self._database.transaction(idempotency=idempotency) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            source_address = self._parse_address(address)
            await self._vault.hold_keys(work)
            source = await work.sources.add_source(
                source_id,
                collection_id=collection.id,
                key_id=principal.key and principal.key.id,
                name=name,
                zones=zones or [],
                **self._seal_address(source_id, source_address),
                **options,
            )
            await work.store_response(source)
            await work.record(principal, SourceCreated(collection_id=collection.id, object_id=source.id))
        return source

    async def list_sources(
        self, principal: Principal, *, after: UUID | None = None, limit: int = 50
    ) -> tuple[Source, ...]:
        """Return sources of collections that the principal reaches, in order of creation.

        Raises:
            ForbiddenError: The principal may not read.
        """
        principal.require(Permission.READ)
        async with self._database.transaction(read_only=True) as work:
            return await work.sources.list_sources(after, limit, principal.collections)

    async def get_source(self, principal: Principal, source_id: UUID) -> Source:
        """Return a source.

        Raises:
            ForbiddenError: The principal may not read.
            NotFoundError: There is no such source, or it does not exist for the principal.
        """
        principal.require(Permission.READ)
        async with self._database.transaction(read_only=True) as work:
            return await work.sources.get_source(source_id, principal.collections)

    async def update_source(self, principal: Principal, source_id: UUID, patch: dict[str, Any]) -> Source:
        """Change settings of a source, which is opened anew, from now on for the principal's key.

        Args:
            principal: The caller.
            source_id: The source.
            patch: New values by the names of `create_source`; None takes the default.

        Raises:
            AddressNotAllowedError: As for `create_source`.
            ForbiddenError: As for `create_source`.
            InvalidInputError: As for `create_source`.
            NotFoundError: There is no such source, or it does not exist for the principal.
        """
        principal.require(Permission.CONFIGURE)
        principal.require(Permission.LIVE)
        changes = dict(patch)
        if "name" in changes:
            changes["name"] = require_text("name", changes["name"])
        if "zones" in changes:
            changes["zones"] = changes["zones"] or []
            _require_zones(changes["zones"])
        async with self._database.transaction() as work:
            source = await work.sources.get_source(source_id, principal.collections, lock=True)
            if not changes:
                return source
            if "address" in changes:
                address = self._parse_address(changes.pop("address"))
                await self._vault.hold_keys(work)
                changes |= self._seal_address(source_id, address)
            # To be running before the change would tell of a loss that is none.
            state = SourceState.CONNECTING
            changes |= {"state": state, "problem": None, "key_id": principal.key and principal.key.id}
            changed = await work.sources.update_source(source_id, **changes)
            fields = tuple(sorted(patch))
            values = {one: {"from": _show(source, one), "to": _show(changed, one)} for one in fields}
            event = SourceChanged(
                collection_id=source.collection_id, object_id=source_id, fields=fields, proof={"changes": values}
            )
            await work.record(principal, event)
        return changed

    async def delete_source(self, principal: Principal, source_id: UUID) -> None:
        """Delete a source with its address.

        Raises:
            ForbiddenError: The principal may not configure collections.
            NotFoundError: There is no such source, or it does not exist for the principal.
        """
        principal.require(Permission.CONFIGURE)
        async with self._database.transaction() as work:
            source = await work.sources.get_source(source_id, principal.collections, lock=True)
            await work.sources.delete_source(source_id)
            await work.record(principal, SourceDeleted(collection_id=source.collection_id, object_id=source_id))

    async def take_snapshot(self, principal: Principal, source_id: UUID) -> bytes:
        """Return what a source shows now, as JPEG; it is stored nowhere.

        A server that does not watch the source opens it for this.

        Raises:
            ConflictError: The source is stopped: switched off, ended, or no longer allowed.
            ForbiddenError: The principal may not recognise people in live video.
            NotFoundError: There is no such source, or it does not exist for the principal.
            OverloadedError: Too many are being taken.
            UnavailableError: The source sends no frame; the detail says why.
        """
        principal.require(Permission.LIVE)
        async with self._database.transaction(read_only=True) as work:
            source = await work.sources.get_source(source_id, principal.collections)
        status = source.current_status
        if status.state is SourceState.STOPPED:
            reason = status.problem.description if status.problem else "It is switched off."
            raise ConflictError(f"The source is stopped and shows nothing. {reason}")
        newest = self.watches[source_id].newest if source_id in self.watches else None
        if newest and time.time() - newest.taken_at < FRESH_S:
            return newest.content
        if self._snapshots >= MAX_SNAPSHOTS:
            raise OverloadedError("Too many pictures of sources are being taken; try again.")
        self._snapshots += 1
        try:
            return await self._take_picture(source)
        finally:
            self._snapshots -= 1

    async def _take_picture(self, source: Source) -> bytes:
        feed = self.pool.open_feed(self.build_opening(source))
        try:
            feed.request_frame(0)
            async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                notice = await feed.receive()
        except TimeoutError:
            raise UnavailableError("The source sent no frame in time.") from None
        finally:
            feed.close()
        if isinstance(notice, FrameTaken):
            return notice.content
        raise UnavailableError(f"The source sends no frame. {notice.problem.description}", problem=notice.problem.value)

    def build_opening(self, source: Source) -> SourceOpening:
        """Return how a source is opened.

        Raises:
            KeyRingError: The keys of this server are missing or others.
            UnavailableError: Its sealed address is damaged.
        """
        try:
            address = self._vault.unseal(source.sealed_address, _describe_context(source.id)).decode()
        except SecretDamagedError:
            raise UnavailableError("The source's stored address is damaged; set it again.") from None
        settings = self._settings
        return SourceOpening(
            SourceAddress.from_text(address),
            AllowedSources(settings.allowed),
            max_side_px=settings.max_side_px,
            open_timeout_s=settings.open_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            hardware=settings.hardware,
        )

    def _parse_address(self, text: str) -> SourceAddress:
        address = SourceAddress.from_text(text)
        if not AllowedSources(self._settings.allowed).may_permit(address):
            raise AddressNotAllowedError(
                "The operator of this server has not allowed this address: VULTUS_SOURCES__ALLOWED names the networks, "
                "hosts and folders of sources."
            )
        return address

    def _seal_address(self, source_id: UUID, address: SourceAddress) -> dict[str, Any]:
        sealed = self._vault.seal(address.text.encode(), _describe_context(source_id))
        return {"label": address.label, "sealed_address": sealed}


def _require_zones(zones: list[list[tuple[float, float]]]) -> None:
    """Refuse zones in which no face would ever count.

    Raises:
        InvalidInputError: A zone has no area.
    """
    for number, points in enumerate(zones, 1):
        if not Zone(tuple(points)).has_area:
            raise InvalidInputError(f"zones: zone {number} has no area: all its corners are on one line.")


def _show(source: Source, setting: str) -> object:
    """Return the value of a setting for JSON; of the address what is no secret."""
    value = getattr(source, "label" if setting == "address" else setting)
    return [[list(point) for point in zone.points] for zone in value] if setting == "zones" else value


def _describe_context(source_id: UUID) -> str:
    return f"source:{source_id}"
