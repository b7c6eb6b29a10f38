"""Examples for the OpenAPI document: online model migration."""

from __future__ import annotations

from typing import Any

_OLD_SPACE_ID, _NEW_SPACE_ID = "dlib-resnet-3f0a9b1c", "sface-0c2d91aa"


def build_migration_examples(
    collection: dict[str, Any], person_id: str, face_id: str, timestamp: str
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return status and example by operation id.

    Args:
        collection: The example of a collection.
        person_id: Id in the example of a person.
        face_id: Id in the example of a face.
        timestamp: ISO 8601, UTC.
    """
    migrated_collection = {**collection, "persons": None, "faces": None, "contract_id": _NEW_SPACE_ID}
    state = {
        "collection_id": collection["id"],
        "target_contract_id": _NEW_SPACE_ID,
        "begun_at": timestamp,
        "switched_at": None,
        "shadow_share": 0.05,
        "active": _build_coverage(_OLD_SPACE_ID, faces=500),
        "second": _build_coverage(
            _NEW_SPACE_ID, faces=497, missing=3, failed={"no_crop": 2, "no_face": 1}, persons_missing=1
        ),
        "crops": 498,
    }
    return {
        "begin_transition": ("200", state),
        "read_transition": ("200", state),
        "switch_transition": (
            "200",
            {
                "previous_contract_id": _OLD_SPACE_ID,
                "collection": {**migrated_collection, "second_contract_id": _OLD_SPACE_ID},
                "persons_left_behind": 0,
                "took_ms": 41.7,
            },
        ),
        "finish_transition": (
            "200",
            {
                "collection": migrated_collection,
                "removed_contract_id": _OLD_SPACE_ID,
                "templates": 500,
                "faces_lost": 0,
                "persons_left_behind": 0,
            },
        ),
        "supply_photos": (
            "200",
            {"photos": [{"photo": 0, "filename": "ada-1.jpg", "outcome": "carried", "faces": [face_id]}]},
        ),
        "list_left_behind": (
            "200",
            {"items": [_build_unmigrated_person(person_id)], "next_cursor": None},
        ),
        "compare_transition": (
            "200",
            _build_comparison(person_id, face_id, timestamp),
        ),
    }


def _build_coverage(space_id: str, faces: int, missing: int = 0, **members: Any) -> dict[str, Any]:
    return {
        "contract_id": space_id,
        "faces": faces,
        "missing": missing,
        "pending": 0,
        "failed": {},
        "persons_missing": 0,
        **members,
    }


def _build_comparison(person_id: str, face_id: str, timestamp: str) -> dict[str, Any]:
    active_verdict = {
        "person_id": person_id,
        "similarity": 0.9731,
        "threshold": 0.9435,
        "verdict": "match",
        "right": True,
    }
    second_verdict = {
        "person_id": person_id,
        "similarity": 0.3312,
        "threshold": 0.3627,
        "verdict": "no_match",
        "right": False,
    }
    disagreement = {"face_id": face_id, "person_id": person_id, "kind": "match_no_match"}
    answers = {_OLD_SPACE_ID: {"verdict": "match", "similarity": 0.9601}, _NEW_SPACE_ID: None}
    return {
        "active_contract_id": _OLD_SPACE_ID,
        "second_contract_id": _NEW_SPACE_ID,
        "compared": 200,
        "agreed": 199,
        "kinds": {"match_no_match": 1},
        "active_wrong": 0,
        "second_wrong": 1,
        "disagreements": [{**disagreement, "active": active_verdict, "second": second_verdict}],
        "shadow": {
            "share": 0.05,
            "compared": 812,
            "agreed": 811,
            "disagreements": [{"at": timestamp, "kind": "match_no_face", "answers": answers}],
        },
    }


def _build_unmigrated_person(person_id: str) -> dict[str, Any]:
    return {"person_id": person_id, "external_id": "E-1017", "name": "Ada", "faces": 1, "reasons": ["no_crop"]}
