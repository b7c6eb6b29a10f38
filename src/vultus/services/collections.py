"""Collections: isolated galleries."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from vultus.domain import Calibration, Collection, HnswGraph, Permission, Principal, Storage
from vultus.domain.erasures import DestroyedCounts
from vultus.domain.events import (
    CollectionCalibrated,
    CollectionChanged,
    CollectionCreated,
    CollectionDeleted,
    CollectionUncalibrated,
    SearchGraphSet,
)
from vultus.domain.texts import MAX_COLLECTION_NAME_LENGTH, require_text
from vultus.errors import EmbeddingSpaceMismatchError, InvalidInputError, NotFoundError, OverloadedError
from vultus.services.policies import build_collection_policy, check_liveness_policy, list_changed_settings, merge_policy
from vultus.services.retention import RETENTION_FIELDS, apply_retention
from vultus.services.storage import apply_storage, check_graph

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import IdempotencyContext, LivenessMode, LoadedSpace, SpaceRegistry

DEFAULT_COLLECTION = "default"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

MAX_PROOFS = 100
"""Kinds of consents that the entry of a deleted collection keeps: the most frequent."""

MAX_ATTEMPTS = 4
"""Attempts before a request gives up; administrative changes are rare."""

Result = TypeVar("Result")


def get_calibration(collection: Collection, space: LoadedSpace) -> Calibration:
    """Return the calibration in effect for a collection: its own, or that of its pack."""
    return collection.calibrations.get(space.id, space.calibration)


def check_same_space(collection: Collection, space_id: str) -> None:
    """Raise unless a collection's vectors are in an embedding space.

    Raises:
        EmbeddingSpaceMismatchError: They are in another one.
    """
    if collection.space_id != space_id:
        raise EmbeddingSpaceMismatchError(
            f"Collection '{collection.name}' holds vectors of contract '{collection.space_id}', "
            f"not of '{space_id}'. Use the network it was created with, or another collection.",
            expected=collection.space_id,
            got=space_id,
        )


class CollectionChangedError(Exception):
    """The collection changed after the photo was analyzed.

    Attributes:
        current: The collection in its current state.
    """

    def __init__(self, current: Collection) -> None:
        super().__init__()
        self.current = current


def ensure_same_search_space(before: Collection, current: Collection, liveness: LivenessMode) -> None:
    """Request a retry by `retry_if_collection_changed` if the collection's active embedding space changed.

    Likewise if its policy now requires a stricter liveness mode than the photo was analyzed with.

    Raises:
        CollectionChangedError: The photo must be analyzed again.
    """
    if before.space_id != current.space_id or liveness.get_stricter_mode(current.policy.liveness) is not liveness:
        raise CollectionChangedError(current)


def ensure_same_write_spaces(before: Collection, current: Collection, liveness: LivenessMode) -> None:
    """Request a retry by `retry_if_collection_changed` if the second embedding space changed or crops are now kept.

    Likewise in the cases of `ensure_same_search_space`.

    Raises:
        CollectionChangedError: The photo must be analyzed again.
    """
    ensure_same_search_space(before, current, liveness)
    crops_missing = current.policy.keep_crops and not before.policy.keep_crops
    if before.second_space_id != current.second_space_id or crops_missing:
        raise CollectionChangedError(current)


async def retry_if_collection_changed(
    collection: Collection, operation: Callable[[Collection], Awaitable[Result]]
) -> Result:
    """Run an operation that analyzes photos and then opens a transaction; repeat it if the collection changed between.

    Args:
        collection: The collection as it was read.
        operation: Analyzes the photos in the collection's embedding spaces, then calls `ensure_same_search_space` or
            `ensure_same_write_spaces` in its transaction.

    Raises:
        OverloadedError: The collection keeps changing.
    """
    for _ in range(MAX_ATTEMPTS):
        try:
            return await operation(collection)
        except CollectionChangedError as changed:
            collection = changed.current
    raise OverloadedError(f"Collection '{collection.name}' keeps changing; try again.")


def require_name(name: str) -> str:
    """Return a collection's name as it is kept.

    Raises:
        InvalidInputError: It is no word of letters, digits, points and dashes, or looks like an id.
    """
    name = require_text("The collection's name", name, max_length=MAX_COLLECTION_NAME_LENGTH)
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidInputError(
            "A collection's name is a word of A-Z, a-z, 0-9, '.', '_' and '-' that begins with a letter or digit."
        )
    with contextlib.suppress(ValueError):
        UUID(name)
        raise InvalidInputError("A collection's name must not look like an id; choose a word.")
    return name


class CollectionService:
    """Creates, reads, updates and deletes collections, by id or name."""

    def __init__(self, database: Database, spaces: SpaceRegistry, *, has_liveness: bool = False) -> None:
        self._database = database
        self._spaces = spaces
        self._has_liveness = has_liveness

    async def get_space(self, principal: Principal, reference: str) -> LoadedSpace:
        """Return the embedding space of a collection's vectors.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that produces its vectors is not loaded.
        """
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
        return self._spaces.get_space(collection.space_id)

    async def create_collection(
        self,
        principal: Principal,
        name: str,
        *,
        pack: str | None = None,
        policy: Mapping[str, Any] | None = None,
        retention_days: int | None = None,
        unseen_days: int | None = None,
        idempotency: IdempotencyContext | None = None,
    ) -> Collection:
        """Create an empty collection in the embedding space of a loaded pack, by default the default one.

        Args:
            principal: For the audit record.
            name: Not yet used.
            pack: Of the embedding space.
            policy: Members that differ from the default policy.
            retention_days: Longest life of a consent.
            unseen_days: Longest time for which a person is kept who is not seen.
            idempotency: Of an idempotent request.

        Raises:
            AlreadyExistsError: The name is taken.
            NotFoundError: The pack is not loaded.
            LivenessNotLoadedError: The policy asks for liveness, which nothing loaded judges.
        """
        principal.require(Permission.CONFIGURE)
        check_liveness_policy(policy, has_liveness=self._has_liveness)
        principal.require_all_collections("create others")
        name = require_name(name)
        space = self._spaces.default if pack is None else self._spaces.get_space_of_pack(pack)
        default = build_collection_policy(space)
        async with self._database.transaction(idempotency=idempotency) as work:
            created = await work.collections.add_collection(
                name=name,
                space_id=space.id,
                policy=merge_policy(default, policy or {}, default=default),
                retention_days=retention_days,
                unseen_days=unseen_days,
            )
            await self._apply_crop_policy(work, created)
            if created.policy.storage is Storage.SEALED:
                await work.person_keys.ensure_installation_keys()
            await work.record(principal, CollectionCreated(collection_id=created.id))
            await work.store_response(created)
        return created

    async def ensure_default_collection(self) -> Collection:
        """Return the collection `default`; create it if the installation does not have it."""
        async with self._database.transaction() as work:
            space = self._spaces.default
            found, is_new = await work.collections.ensure_collection(
                name=DEFAULT_COLLECTION, space_id=space.id, policy=build_collection_policy(space)
            )
            if is_new:
                await work.record(Principal.from_process("setup"), CollectionCreated(collection_id=found.id))
        return found

    async def get_collection_with_counts(self, principal: Principal, reference: str) -> tuple[Collection, int, int]:
        """Return a collection, its number of persons and its number of faces."""
        async with self._database.transaction(read_only=True) as work:
            found = await work.open(reference, principal, Permission.RECOGNIZE)
            persons, faces = await work.collections.count_persons_and_faces(found.id)
        return found, persons, faces

    async def list_collections(self, principal: Principal, *, after: UUID | None, limit: int) -> tuple[Collection, ...]:
        """Return collections in order of creation, after the given id."""
        principal.require(Permission.RECOGNIZE)
        async with self._database.transaction(read_only=True) as work:
            return await work.collections.list_collections(after=after, limit=limit, among=principal.collections)

    async def update_collection(
        self, principal: Principal, reference: str, *, end_older: bool = False, **patch: Any
    ) -> Collection:
        """Update a collection; faces stay, crops as long as the policy keeps them, a graph until `search` is set.

        A retention holds for the consents that were given before it, too.

        Args:
            reference: Id or name.
            principal: For the audit record.
            end_older: Whether consents that are older than a new retention may end at once.
            patch: Of name, retention_days, unseen_days and search the new value, of policy a JSON merge patch.

        Raises:
            KeyRingError: The new policy keeps crops or seals templates, but the keys for it are not available.
            ConflictError: The collection's graph is being built, consents are older than the new retention, or a
                sealed collection is to be open or have a graph.
            PackNotLoadedError: The policy is changed, and the pack with its defaults is not loaded.
        """
        check_liveness_policy(patch.get("policy"), has_liveness=self._has_liveness)
        if "search" not in patch:
            return await self._apply_patch(principal, reference, patch, end_older=end_older)
        found, _, _ = await self.get_collection_with_counts(principal, reference)
        async with self._database.open_hnsw_maintenance(found.id) as graph:
            changed = await self._apply_patch(principal, str(found.id), patch, end_older=end_older)
            await graph.drop_index()
        return changed

    async def _apply_patch(
        self, principal: Principal, reference: str, patch: Mapping[str, Any], *, end_older: bool
    ) -> Collection:
        if "name" in patch:  # a name that is refused would tell of another collection
            principal.require_all_collections("rename one")
        async with self._database.transaction(writes_to=reference) as work:
            # Locked, so that of two patches the second is merged into the result of the first.
            found = await work.open(reference, principal, Permission.CONFIGURE)
            changes = dict(patch)
            if "name" in changes:
                changes["name"] = require_name(changes["name"])
            if "policy" in patch:
                default = build_collection_policy(self._spaces.get_space(found.space_id))
                changes["policy"] = merge_policy(found.policy, patch["policy"], default=default)
            changed = await work.collections.update_collection(found.id, **changes)
            await apply_storage(work, found, changed)
            crops = await self._apply_crop_policy(work, changed)
            is_limited = not RETENTION_FIELDS.isdisjoint(patch)
            shortened = await apply_retention(work, changed, end_older=end_older) if is_limited else 0
            settings = list_changed_settings(found, changed)
            event = CollectionChanged(
                collection_id=found.id,
                fields=tuple(settings),
                changes={name: values for name, values in settings.items() if name != "name"},
                crops_deleted=crops,
                consents_shortened=shortened,
            )
            await work.record(principal, event)
        return changed

    async def set_calibration(
        self,
        work: UnitOfWork,
        principal: Principal,
        collection_id: UUID,
        space_id: str,
        calibration: Calibration,
        *,
        target_fmr: float | None = None,
        target_fpir: float | None = None,
    ) -> Collection:
        """Store thresholds measured on a collection; a target, if given, replaces the policy's.

        Raises:
            NotFoundError: There is no such collection.
        """
        found = await work.open(str(collection_id), principal, Permission.CALIBRATE)
        await work.collections.set_calibration(found.id, space_id, calibration)
        if target_fmr is not None or target_fpir is not None:
            aimed = replace(
                found.policy,
                threshold=None,
                target_fmr=found.policy.target_fmr if target_fmr is None else target_fmr,
                target_fpir=found.policy.target_fpir if target_fpir is None else target_fpir,
            )
            await work.collections.update_collection(found.id, policy=aimed)
        await work.record(
            principal,
            CollectionCalibrated(
                collection_id=found.id,
                contract_id=space_id,
                points=calibration.points,
                target_fmr=target_fmr,
                target_fpir=target_fpir,
            ),
        )
        return await work.collections.get_collection(found.id)

    async def set_search_graph(self, principal: Principal, collection_id: UUID, graph: HnswGraph) -> Collection:
        """Search a collection through its existing HNSW graph from the next request on.

        Raises:
            NotFoundError: There is no such collection.
        """
        async with self._database.transaction(writes_to=str(collection_id)) as work:
            found = await work.open(str(collection_id), principal, Permission.CONFIGURE)
            check_graph(replace(found, graph=graph))
            await work.collections.set_hnsw_graph(collection_id, graph)
            await work.record(
                principal,
                SearchGraphSet(
                    collection_id=collection_id,
                    m=graph.m,
                    ef_construction=graph.ef_construction,
                    ef_search=graph.ef_search,
                    probes=graph.loss.probes,
                    lost=graph.loss.lost,
                ),
            )
            return await work.collections.get_collection(collection_id)

    async def remove_calibration(self, principal: Principal, reference: str) -> None:
        """Restore the thresholds of the pack; the policy stays.

        Raises:
            NotFoundError: There is no such collection, or it has no calibration of its own.
        """
        async with self._database.transaction(writes_to=reference) as work:
            found = await work.open(reference, principal, Permission.CALIBRATE)
            if found.space_id not in found.calibrations:
                raise NotFoundError(f"Collection '{found.name}' has no calibration of its own; its pack's holds.")
            await work.collections.set_calibration(found.id, found.space_id, None)
            await work.record(principal, CollectionUncalibrated(collection_id=found.id, contract_id=found.space_id))

    async def delete_collection(self, principal: Principal, reference: str) -> None:
        """Delete a collection with its persons and faces."""
        async with self._database.transaction(writes_to=reference) as work:
            found = await work.open(reference, principal, Permission.CONFIGURE)
            await delete_collection(work, found.id, principal=principal)

    async def _apply_crop_policy(self, work: UnitOfWork, collection: Collection) -> int:
        """Ensure that keys exist if the policy keeps crops, else delete them; return the number of crops deleted."""
        if collection.policy.keep_crops:
            await work.person_keys.ensure_installation_keys()
            return 0
        return await work.crops.delete_crops(collection.id)


async def delete_collection(
    work: UnitOfWork, collection_id: UUID, *, principal: Principal, erasure_id: UUID | None = None
) -> None:
    """Delete a collection with its persons and faces, and record that, under the id of an erasure that is done again.

    Raises:
        NotFoundError: There is no such collection.
    """
    receivers = await work.webhooks.list_receivers_in(collection_id)
    crops = await work.crops.count_crops(collection_id)
    proof = {"consents_ended": await work.consents.summarize_consents(collection_id, MAX_PROOFS)}
    persons, faces = await work.collections.delete_collection(collection_id)
    event = CollectionDeleted(collection_id=collection_id, persons=persons, faces=faces, proof=proof)
    entry_id = await work.record(principal, event, receivers=receivers)
    destroyed = DestroyedCounts(persons=persons, faces=faces, crops=crops)
    await work.erasures.add_erasure(erasure_id or entry_id, event, principal, destroyed)
