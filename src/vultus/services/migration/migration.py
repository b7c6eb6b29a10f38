"""A living gallery changes its network: two contracts side by side, one switch, and a way back."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.db.repositories.collections import policy_of
from vultus.domain import Actor, Collection, Side, Transition
from vultus.errors import ConflictError, NotFoundError, TransitionIncompleteError
from vultus.services.collections import find_collection
from vultus.services.migration.policy_translation import check_threshold, policy_under
from vultus.services.people.erasure import open_for_writing

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database, Work
    from vultus.domain import LeftBehind
    from vultus.models.pipelines import Pipelines


@dataclass(frozen=True, slots=True)
class TransitionState:
    """How far a collection is on its way.

    Attributes:
        active: The contract that is searched.
        second: The other one.
        crops: Faces that have a retained crop.
    """

    collection: Collection
    transition: Transition
    active: Side
    second: Side
    crops: int


@dataclass(frozen=True, slots=True)
class Switched:
    """A collection after it changed the contract that is searched.

    Attributes:
        before: The collection as it was.
        left_behind: Persons that had faces, but none a search finds now.
        took_ms: From the call to the commit, the wait for other writers included.
    """

    before: Collection
    collection: Collection
    left_behind: int
    took_ms: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A collection that has one contract again.

    Attributes:
        removed_contract_id: The contract whose templates were removed.
        templates: How many.
        faces_lost: Faces that had no other template, and went with their crops.
        left_behind: Persons who lost their last face.
    """

    collection: Collection
    removed_contract_id: str
    templates: int
    faces_lost: int
    left_behind: int


async def under_way(work: Work, home: Collection) -> tuple[Transition, str]:
    """Return a collection's transition and its second contract.

    Raises:
        NotFoundError: It is not changing its network.
    """
    transition = await work.transitions.get(home.id)
    if transition is None or home.second_contract_id is None:
        raise NotFoundError(f"Collection '{home.name}' is not changing its network.")
    return transition, home.second_contract_id


class Transitions:
    """Begins, watches, switches and ends the change of a collection's network."""

    def __init__(self, database: Database, pipelines: Pipelines) -> None:
        self._database = database
        self._pipelines = pipelines

    async def set_out(self, reference: str, *, pack: str, shadow_share: float, actor: Actor) -> TransitionState:
        """Let enrolment write a second contract; again, have faces tried anew that could not be carried over.

        Raises:
            NotFoundError: The collection does not exist or the pack is not loaded.
            ConflictError: The collection uses that contract already, or is on its way to another one.
        """
        target = self._pipelines.named(pack).contract.id
        async with self._database.work() as work:
            home = await open_for_writing(work, reference)
            known = await work.transitions.get(home.id)
            if known is None:
                if target == home.contract_id:
                    raise ConflictError(f"Collection '{home.name}' uses contract '{target}' of pack '{pack}' already.")
                await work.transitions.add(home.id, target, shadow_share)
                await work.collections.change(home.id, second_contract_id=target)
            elif known.contract_id != target:
                raise ConflictError(
                    f"Collection '{home.name}' is on its way to contract '{known.contract_id}'; finish that first."
                )
            else:
                await work.carrying.forget_failures(home.id)
                await work.transitions.change(home.id, shadow_share=shadow_share)
            action = "transition.begun" if known is None else "transition.retried"
            await work.audit.add(actor, action, collection_id=home.id, detail={"contract_id": target})
            return await _state(work, await work.collections.get(home.id))

    async def state(self, reference: str) -> TransitionState:
        """Return how far a collection is.

        Raises:
            NotFoundError: It does not exist, or is not changing its network.
        """
        async with self._database.work(read_only=True) as work:
            return await _state(work, await find_collection(work, reference))

    async def left_behind(self, reference: str, *, after: UUID | None, limit: int) -> tuple[LeftBehind, ...]:
        """Return the persons that the contract a collection goes to does not find; after the end, its only contract."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, reference)
            transition = await work.transitions.get(home.id)
            contract = transition.contract_id if transition else home.contract_id
            return await work.transitions.left_behind(home.id, contract, after=after, limit=limit)

    async def switch(self, reference: str, *, leave_behind: bool, actor: Actor) -> Switched:
        """Search the second contract from the next request on, and keep the first as second: the way back is the same.

        Raises:
            NotFoundError: The collection does not exist, or is not changing its network.
            TransitionIncompleteError: Faces are still to be carried, or persons would not be found any more and
                `leave_behind` is not set.
            InvalidInputError: The other network's calibration does not resolve the policy's fixed threshold.
        """
        started = time.perf_counter()
        async with self._database.work() as work:
            home = await open_for_writing(work, reference)
            transition, second = await under_way(work, home)
            side = await work.transitions.side(home.id, second)
            _check_complete(home, side, "switch", leave_behind=leave_behind)
            last = transition.policies
            # On the way back the very policy that was left, unless it was changed since.
            returning = last is not None and last["came"] == asdict(home.policy)
            if last and returning:
                policy = policy_of(last["left"])
            else:
                check_threshold(home, second, self._pipelines)
                policy = policy_under(home, second, self._pipelines)
            changed = await work.collections.change(
                home.id, contract_id=second, second_contract_id=home.contract_id, policy=policy
            )
            await work.transitions.change(
                home.id,
                switched_at=datetime.now(UTC),
                policies={"left": asdict(home.policy), "came": asdict(policy)},
            )
            await work.audit.add(
                actor,
                "transition.switched",
                collection_id=home.id,
                detail={"from": home.contract_id, "to": second, "persons_left_behind": side.persons_missing},
            )
        return Switched(home, changed, side.persons_missing, (time.perf_counter() - started) * 1e3)

    async def finish(self, reference: str, *, leave_behind: bool, actor: Actor) -> Finished:
        """Remove the templates of the second contract: the end after a switch, the way out before one.

        Raises:
            NotFoundError: The collection does not exist, or is not changing its network.
            TransitionIncompleteError: Faces have no template of the contract that stays and `leave_behind` is not set.
        """
        async with self._database.work() as work:
            home = await open_for_writing(work, reference)
            _, second = await under_way(work, home)
            side = await work.transitions.side(home.id, home.contract_id)
            _check_complete(home, side, "finish", leave_behind=leave_behind)
            _check_none_lost(home, side, leave_behind=leave_behind)
            templates = await work.transitions.end(home.id, second)
            changed = await work.collections.change(home.id, second_contract_id=None)
            await work.audit.add(
                actor,
                "transition.finished",
                collection_id=home.id,
                detail={
                    "kept": home.contract_id,
                    "removed": second,
                    "templates": templates,
                    "faces_lost": side.missing,
                    "persons_left_behind": side.persons_missing,
                },
            )
        return Finished(changed, second, templates, side.missing, side.persons_missing)


def _check_complete(home: Collection, side: Side, act: str, *, leave_behind: bool) -> None:
    if leave_behind:
        return
    if side.pending:
        raise TransitionIncompleteError(
            f"{side.pending} faces of '{home.name}' are still to be carried to contract '{side.contract_id}'. "
            "Wait for the server to do it, run 'vultus transition run', or set leave_behind.",
            pending=side.pending,
            persons=side.persons_missing,
        )
    if side.persons_missing:
        raise TransitionIncompleteError(
            f"{side.persons_missing} persons of '{home.name}' have no face of contract '{side.contract_id}' and "
            f"would not be found after the {act}. See who they are in 'left-behind', supply their photos again, or set "
            "leave_behind.",
            pending=0,
            persons=side.persons_missing,
        )


def _check_none_lost(home: Collection, side: Side, *, leave_behind: bool) -> None:
    if side.missing and not leave_behind:
        raise TransitionIncompleteError(
            f"{side.missing} faces of '{home.name}' have no template of contract '{side.contract_id}' and would be "
            "erased with their crops; their persons keep other faces. Supply their photos again, or set leave_behind.",
            pending=0,
            persons=0,
        )


async def _state(work: Work, home: Collection) -> TransitionState:
    transition, second = await under_way(work, home)
    return TransitionState(
        home,
        transition,
        await work.transitions.side(home.id, home.contract_id),
        await work.transitions.side(home.id, second),
        await work.crops.count(home.id),
    )
