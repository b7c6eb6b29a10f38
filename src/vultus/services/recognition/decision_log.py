"""Records why probes were answered as they were, where a collection's policy says so, and who was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vultus.domain import SearchRecording, Verdict
from vultus.services.collections import get_calibration
from vultus.utils.ids import new_id
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.domain import Collection, LoadedSpace, Principal
    from vultus.domain.decision_records import Answer, DecisionKind
    from vultus.services.people.last_seen import LastSeenLog


class DecisionLog:
    """Records decisions before they are answered: what cannot be recorded is not answered.

    Args:
        database: Where the records are.
        last_seen: Is told whom matches name.
    """

    def __init__(self, database: Database, last_seen: LastSeenLog) -> None:
        self._database = database
        self._last_seen = last_seen

    async def record(
        self,
        principal: Principal,
        collection: Collection,
        space: LoadedSpace,
        kind: DecisionKind,
        answers: Sequence[Answer],
    ) -> None:
        """Record answers as the collection's policy says, durably when this returns.

        Args:
            principal: Who asked.
            collection: As it was searched.
            space: The embedding space of the probes.
            kind: What was asked.
            answers: One per probe, with scores.

        Raises:
            VultusError: They cannot be recorded, and must not be given.
        """
        matches = [one for one in answers if one.decision.verdict is Verdict.MATCH]
        self._last_seen.note(collection, [one.person_id for one in matches if one.person_id])
        recording = collection.policy.record_searches
        kept = {SearchRecording.NONE: (), SearchRecording.MATCHES: matches, SearchRecording.ALL: answers}[recording]
        if not kept:
            return
        rules = _describe_rules(collection, space)
        async with self._database.transaction() as work:
            for answer in kept:
                values = _build_values(answer) | {
                    "kind": kind,
                    "actor": principal.id,
                    "request_id": principal.request_id,
                }
                values["detail"] |= rules
                await work.decisions.add_decision(collection.id, answer.person_id, answer.face_id, values)


def _build_values(answer: Answer) -> dict[str, Any]:
    decision, liveness = answer.decision, answer.liveness
    return {
        "id": answer.id or new_id(),
        "origin_id": answer.origin_id,
        "track_id": answer.track_id,
        "verdict": decision.verdict.value,
        "band": decision.band and decision.band.value,
        "similarity": answer.similarity,
        "threshold": decision.threshold,
        "detail": {
            "reasons": list(decision.reasons),
            "false_match_rate": decision.fmr,
            "worst_group_false_match_rate": decision.worst_group_fmr,
            "false_positive_identification_rate": decision.fpir,
            "gallery_size": decision.gallery_size,
            "liveness": liveness and {"score": round(liveness.score, 4), "reason": liveness.reason.value},
        },
    }


def _describe_rules(collection: Collection, space: LoadedSpace) -> dict[str, Any]:
    """Return what the threshold follows, and since when the collection is as it was."""
    policy = collection.policy
    return {
        "contract_id": space.id,
        "calibration": get_calibration(collection, space).source,
        "policy": {
            "threshold": policy.threshold,
            "target_fmr": policy.target_fmr,
            "target_fpir": policy.target_fpir,
            "margin": policy.margin,
            "fusion": policy.fusion.value,
            "liveness": policy.liveness.value,
        },
        "rules_since": format_moment(collection.updated_at),
    }
