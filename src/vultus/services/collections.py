"""Isolated galleries: create, find, change, drop."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from vultus.domain import Actor, Calibration, Collection, DecisionPolicy, Graph
from vultus.domain.decision import DEFAULT_FMR
from vultus.errors import ContractMismatchError, InvalidInputError, NotFoundError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.db.database import Database, Look, Work
    from vultus.domain import LivenessMode
    from vultus.models.pipeline import FacePipeline
    from vultus.models.pipelines import Pipelines
    from vultus.services.crop_vault import CropVault

DEFAULT_COLLECTION = "default"

TRIES = 4
"""Changes are made by people: more of them than this during one request are none."""

Result = TypeVar("Result")


async def find_collection(work: Look, reference: str) -> Collection:
    """Return the collection with that id or name.

    Raises:
        NotFoundError: There is none.
    """
    try:
        key = UUID(reference)
    except ValueError:
        return await work.collections.by_name(reference)
    return await work.collections.get(key)


def calibration_of(collection: Collection, pipeline: FacePipeline) -> Calibration:
    """Return the thresholds that hold for a collection: its own, or those its pack was measured with."""
    return collection.calibrations.get(pipeline.contract.id, pipeline.calibration)


def check_contract(collection: Collection, contract_id: str) -> None:
    """Refuse to compare vectors of two contracts.

    Raises:
        ContractMismatchError: The collection holds vectors of another network.
    """
    if collection.contract_id != contract_id:
        raise ContractMismatchError(
            f"Collection '{collection.name}' holds vectors of contract '{collection.contract_id}', "
            f"not of '{contract_id}'. Use the network it was created with, or another collection.",
            expected=collection.contract_id,
            got=contract_id,
        )


class _MovedError(Exception):
    """The collection asks for more than the photos were described for; carries it as it is now."""

    def __init__(self, now: Collection) -> None:
        super().__init__()
        self.now = now


def check_searched(before: Collection, now: Collection, liveness: LivenessMode) -> None:
    """Go back to the photo, in `under_contract`, if a search would compare vectors of another contract.

    Likewise if the policy asks for more by now than the mode of liveness the photo was looked at with.
    """
    if before.contract_id != now.contract_id or liveness.at_least(now.policy.liveness) is not liveness:
        raise _MovedError(now)


def check_written(before: Collection, now: Collection, liveness: LivenessMode) -> None:
    """Go back to the photo, in `under_contract`, if templates of other contracts, or crops, are to be written.

    Likewise in the cases of `check_searched`.
    """
    check_searched(before, now, liveness)
    crops_wanted = now.policy.keep_crops and not before.policy.keep_crops
    if before.second_contract_id != now.second_contract_id or crops_wanted:
        raise _MovedError(now)


async def under_contract(home: Collection, act: Callable[[Collection], Awaitable[Result]]) -> Result:
    """Do what needs a photo described first and a transaction afterwards, again if one of the checks says so.

    Args:
        home: The collection as it was found.
        act: Given the collection, describes the photo by its contracts; its transaction calls one of the checks.

    Raises:
        OverloadedError: The collection keeps changing.
    """
    for _ in range(TRIES):
        try:
            return await act(home)
        except _MovedError as moved:
            home = moved.now
    raise OverloadedError(f"Collection '{home.name}' keeps changing; try again.")


def _check_name(name: str) -> None:
    with contextlib.suppress(ValueError):
        UUID(name)
        raise InvalidInputError("A collection's name must not look like an id; choose a word.")


def _default_policy(pipeline: FacePipeline) -> DecisionPolicy:
    return DecisionPolicy(enrol=pipeline.enrol_rule, recognize=pipeline.recognize_rule, target_fmr=DEFAULT_FMR)


class Collections:
    """Collections by id or name."""

    def __init__(self, database: Database, pipelines: Pipelines, vault: CropVault) -> None:
        self._database = database
        self._pipelines = pipelines
        self._vault = vault

    def default_policy(self, pack: str | None = None) -> DecisionPolicy:
        """Return the policy of a collection that asks for nothing else.

        Raises:
            NotFoundError: The pack is not loaded.
        """
        return _default_policy(self._pipeline(pack))

    async def default_policy_of(self, reference: str) -> DecisionPolicy:
        """Return the policy a collection had if it asked for nothing else.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that makes its vectors is not loaded.
        """
        return _default_policy(await self.pipeline_of(reference))

    async def pipeline_of(self, reference: str) -> FacePipeline:
        """Return what makes a collection's vectors.

        Raises:
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack that makes its vectors is not loaded.
        """
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, reference)
        return self._pipelines.of(home.contract_id)

    async def create(
        self,
        name: str,
        *,
        actor: Actor,
        pack: str | None = None,
        policy: DecisionPolicy | None = None,
        retention_days: int | None = None,
    ) -> Collection:
        """Create an empty collection that pins the contract of a loaded pack, the default one unless told.

        Raises:
            AlreadyExistsError: The name is taken.
            NotFoundError: The pack is not loaded.
        """
        _check_name(name)
        pipeline = self._pipeline(pack)
        async with self._database.work() as work:
            made = await work.collections.add(
                name=name,
                contract_id=pipeline.contract.id,
                policy=policy or _default_policy(pipeline),
                retention_days=retention_days,
            )
            await self._keep_crops(work, made)
            await work.audit.add(actor, "collection.created", collection_id=made.id)
        return made

    async def ensure_default(self) -> Collection:
        """Return the collection `default`, creating it on first use of an installation."""
        async with self._database.work() as work:
            pipeline = self._pipelines.default
            return await work.collections.ensure(
                name=DEFAULT_COLLECTION, contract_id=pipeline.contract.id, policy=_default_policy(pipeline)
            )

    async def get(self, reference: str) -> tuple[Collection, int, int]:
        """Return a collection with its numbers of persons and of faces."""
        async with self._database.work(read_only=True) as work:
            found = await find_collection(work, reference)
            persons, faces = await work.collections.counts(found.id)
        return found, persons, faces

    async def page(self, *, after: UUID | None, limit: int) -> tuple[Collection, ...]:
        """Return collections in order of creation, those after the given id."""
        async with self._database.work(read_only=True) as work:
            return await work.collections.page(after=after, limit=limit)

    async def change(
        self, reference: str, *, actor: Actor, staying: frozenset[str] = frozenset(), **changes: Any
    ) -> Collection:
        """Change a collection; faces stay, crops as long as the policy keeps them, a graph until `search` is set.

        Args:
            reference: Id or name.
            actor: Who does it.
            staying: Fields that a new policy takes over from the one there is.
            changes: New values by field: name, policy, retention_days, search.

        Raises:
            CropKeyError: The policy shall keep crops, but their key is not at hand.
            ConflictError: The collection's graph is being built.
        """
        if "search" not in changes:
            return await self._change(reference, actor, staying, changes)
        found, _, _ = await self.get(reference)
        async with self._database.graph_work(found.id) as graph:
            changed = await self._change(str(found.id), actor, staying, changes)
            await graph.drop()
        return changed

    async def _change(
        self, reference: str, actor: Actor, staying: frozenset[str], changes: dict[str, Any]
    ) -> Collection:
        async with self._database.work() as work:
            found = await find_collection(work, reference)
            await work.lock_collection(found.id)
            _check_name(changes.get("name", found.name))
            if staying:
                there = (await work.collections.get(found.id)).policy
                changes["policy"] = replace(changes["policy"], **{name: getattr(there, name) for name in staying})
            changed = await work.collections.change(found.id, **changes)
            crops = await self._keep_crops(work, changed)
            await work.audit.add(
                actor,
                "collection.changed",
                collection_id=found.id,
                detail={"fields": sorted(changes), **({"crops_deleted": crops} if crops else {})},
            )
        return changed

    async def calibrate(
        self,
        collection_id: UUID,
        contract_id: str,
        calibration: Calibration,
        *,
        target_fmr: float | None = None,
        target_fpir: float | None = None,
        actor: Actor,
    ) -> Collection:
        """Store thresholds measured on a collection; a target, if one is given, becomes the policy's.

        Raises:
            NotFoundError: There is no such collection.
        """
        async with self._database.work() as work:
            await work.lock_collection(collection_id)
            found = await work.collections.get(collection_id)
            await work.collections.calibrate(found.id, contract_id, calibration)
            if target_fmr is not None or target_fpir is not None:
                aimed = replace(found.policy, threshold=None, target_fmr=target_fmr, target_fpir=target_fpir)
                await work.collections.change(found.id, policy=aimed)
            await work.audit.add(
                actor,
                "collection.calibrated",
                collection_id=found.id,
                detail={
                    "contract_id": contract_id,
                    "points": [list(point) for point in calibration.points],
                    "target_fmr": target_fmr,
                    "target_fpir": target_fpir,
                },
            )
            return await work.collections.get(found.id)

    async def search_along(self, collection_id: UUID, graph: Graph, *, actor: Actor) -> Collection:
        """Have a collection searched along a graph, which is there, from the next request on.

        Raises:
            NotFoundError: There is no such collection.
        """
        async with self._database.work() as work:
            await work.lock_collection(collection_id)
            await work.collections.search_along(collection_id, graph)
            await work.audit.add(
                actor,
                "collection.changed",
                collection_id=collection_id,
                detail={
                    "fields": ["search"],
                    "m": graph.m,
                    "ef_construction": graph.ef_construction,
                    "ef_search": graph.ef_search,
                    "probes": graph.loss.probes,
                    "lost": graph.loss.lost,
                },
            )
            return await work.collections.get(collection_id)

    async def uncalibrate(self, reference: str, *, actor: Actor) -> None:
        """Go back to the thresholds of the pack; the policy stays.

        Raises:
            NotFoundError: There is no such collection, or it has no calibration of its own.
        """
        async with self._database.work() as work:
            found = await find_collection(work, reference)
            if found.contract_id not in found.calibrations:
                raise NotFoundError(f"Collection '{found.name}' has no calibration of its own; its pack's holds.")
            await work.collections.calibrate(found.id, found.contract_id, None)
            await work.audit.add(
                actor,
                "collection.uncalibrated",
                collection_id=found.id,
                detail={"contract_id": found.contract_id},
            )

    async def delete(self, reference: str, *, actor: Actor) -> None:
        """Drop a collection with everybody in it."""
        async with self._database.work() as work:
            found = await find_collection(work, reference)
            persons, faces = await work.collections.delete(found.id)
            await work.audit.add(
                actor, "collection.deleted", collection_id=found.id, detail={"persons": persons, "faces": faces}
            )

    async def _keep_crops(self, work: Work, home: Collection) -> int:
        """Make sure that there is a key if the policy keeps crops, else delete them; return how many went."""
        if home.policy.keep_crops:
            await self._vault.key(work)
            return 0
        return await work.crops.delete_all(home.id)

    def _pipeline(self, pack: str | None) -> FacePipeline:
        return self._pipelines.default if pack is None else self._pipelines.named(pack)
