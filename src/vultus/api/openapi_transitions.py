"""Examples for the OpenAPI document: a collection changes its network."""

from __future__ import annotations

from typing import Any

_OLD, _NEW = "dlib-resnet-3f0a9b1c", "sface-0c2d91aa"


def transition_examples(
    collection: dict[str, Any], person_id: str, face_id: str, at: str
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return status and example by the function of a route.

    Args:
        collection: The example of a collection.
        person_id: Of the example of a person.
        face_id: Of the example of a face.
        at: A moment.
    """
    moved = {**collection, "persons": None, "faces": None, "contract_id": _NEW}
    state = {
        "collection_id": collection["id"],
        "target_contract_id": _NEW,
        "begun_at": at,
        "switched_at": None,
        "shadow_share": 0.05,
        "active": _side(_OLD, faces=500),
        "second": _side(_NEW, faces=497, missing=3, failed={"no_crop": 2, "no_face": 1}, persons_missing=1),
        "crops": 498,
    }
    return {
        "begin_transition": ("200", state),
        "read_transition": ("200", state),
        "switch_transition": (
            "200",
            {
                "previous_contract_id": _OLD,
                "collection": {**moved, "second_contract_id": _OLD},
                "persons_left_behind": 0,
                "took_ms": 41.7,
            },
        ),
        "finish_transition": (
            "200",
            {
                "collection": moved,
                "removed_contract_id": _OLD,
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
            {"items": [_left_behind(person_id)], "next_cursor": None},
        ),
        "compare_transition": (
            "200",
            _comparison(person_id, face_id, at),
        ),
    }


def _side(contract_id: str, faces: int, missing: int = 0, **members: Any) -> dict[str, Any]:
    return {
        "contract_id": contract_id,
        "faces": faces,
        "missing": missing,
        "pending": 0,
        "failed": {},
        "persons_missing": 0,
        **members,
    }


def _comparison(person_id: str, face_id: str, at: str) -> dict[str, Any]:
    opinion = {"person_id": person_id, "similarity": 0.9731, "threshold": 0.9435, "verdict": "match", "right": True}
    other = {"person_id": person_id, "similarity": 0.3312, "threshold": 0.3627, "verdict": "no_match", "right": False}
    disagreement = {"face_id": face_id, "person_id": person_id, "kind": "match_no_match"}
    answers = {_OLD: {"verdict": "match", "similarity": 0.9601}, _NEW: None}
    return {
        "active_contract_id": _OLD,
        "second_contract_id": _NEW,
        "compared": 200,
        "agreed": 199,
        "kinds": {"match_no_match": 1},
        "active_wrong": 0,
        "second_wrong": 1,
        "disagreements": [{**disagreement, "active": opinion, "second": other}],
        "shadow": {
            "share": 0.05,
            "compared": 812,
            "agreed": 811,
            "disagreements": [{"at": at, "kind": "match_no_face", "answers": answers}],
        },
    }


def _left_behind(person_id: str) -> dict[str, Any]:
    return {"person_id": person_id, "external_id": "E-1017", "name": "Ada", "faces": 1, "reasons": ["no_crop"]}
