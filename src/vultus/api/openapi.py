"""Examples of successful responses for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from vultus.api.openapi_transitions import build_migration_examples

_PERSON = "019f0c2e-6a7b-7cc1-a2b3-c4d5e6f70819"
_OTHER_PERSON = "019f0c2e-6b00-7cc2-b3c4-d5e6f7081920"
_COLLECTION = "019f0c2d-1111-7aaa-8bbb-123456789abc"
_FACE = "019f0c2e-6a90-7d11-9e22-aabbccddeeff"
_CONSENT = "019f0c2e-6a8f-7b01-8c02-0123456789ab"
_KEY = "019f0c2d-2222-7bbb-8ccc-abcdefabcdef"
_TIMESTAMP = "2026-11-24T09:30:00Z"
_SPACE_ID = "dlib-resnet-3f0a9b1c"
_SHA256 = "3b6a3c5e0f1d2a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3"

_DETECTED: dict[str, Any] = {
    "box": {"left": 176.4, "top": 62.1, "right": 272.9, "bottom": 188.6},
    "landmarks": {
        "left_eye": {"x": 203.2, "y": 112.4},
        "right_eye": {"x": 247.6, "y": 111.8},
        "nose": {"x": 226.9, "y": 139.0},
        "left_mouth": {"x": 207.3, "y": 158.7},
        "right_mouth": {"x": 245.1, "y": 158.1},
    },
    "score": 0.9998,
    "quality": {
        "size_px": 96.5,
        "sharpness": 412.7,
        "brightness": 0.54,
        "yaw_deg": 2.1,
        "pitch_deg": -3.4,
        "roll_deg": -0.8,
    },
}
_DECISION = {
    "verdict": "match",
    "threshold": 0.9412,
    "false_match_rate": 0.0001,
    "false_positive_identification_rate": 0.0488,
    "gallery_size": 500,
    "margin": 0.0731,
    "reasons": ["above_threshold"],
}
_CANDIDATE = {
    "person_id": _PERSON,
    "external_id": "E-1017",
    "name": "Ada",
    "face_id": _FACE,
    "similarity": 0.9731,
    "probability": 0.9999,
}
_PHOTO = {"width": 512, "height": 512, "sha256": _SHA256}
_PERSON_OUT = {
    "id": _PERSON,
    "collection_id": _COLLECTION,
    "external_id": "E-1017",
    "name": "Ada",
    "metadata": {"department": "Engines"},
    "created_at": _TIMESTAMP,
    "updated_at": _TIMESTAMP,
}
_CONSENT_OUT = {
    "id": _CONSENT,
    "person_id": _PERSON,
    "purpose": "Entry to building A",
    "recorded_by": "reception@example.org",
    "evidence_ref": "form-2026-0117",
    "granted_at": _TIMESTAMP,
    "expires_at": "2027-11-24T09:30:00Z",
    "withdrawn_at": None,
}
_FACE_OUT = {
    "id": _FACE,
    "person_id": _PERSON,
    "consent_id": _CONSENT,
    "contract_id": _SPACE_ID,
    "contracts": [_SPACE_ID],
    "quality": _DETECTED["quality"],
    "score": 0.9998,
    "source_sha256": _SHA256,
    "created_at": _TIMESTAMP,
}
_REGISTERED = {
    "collection_id": _COLLECTION,
    "person": _PERSON_OUT,
    "created": True,
    "consent": _CONSENT_OUT,
    "accepted": [{"photo": 0, "filename": "ada-1.jpg", "face": _FACE_OUT}],
    "rejected": [
        {
            "photo": 1,
            "filename": "ada-2.jpg",
            "reasons": ["too_blurred"],
            "detail": "the face's sharpness is 11; 30 is needed",
        }
    ],
}
_RULE = {
    "min_score": 0.9,
    "min_size_px": 40,
    "min_sharpness": 30,
    "max_yaw_deg": 50,
    "max_pitch_deg": 50,
    "min_brightness": 0.12,
    "max_brightness": 0.85,
}
_COLLECTION_OUT = {
    "id": _COLLECTION,
    "name": "default",
    "contract_id": _SPACE_ID,
    "second_contract_id": None,
    "policy": {
        "threshold": None,
        "target_fmr": 0.0001,
        "target_fpir": None,
        "margin": None,
        "keep_crops": False,
        "fusion": "best",
        "liveness": "off",
        "enrol": _RULE,
        "recognize": _RULE,
    },
    "retention_days": 365,
    "search": "auto",
    "graph": None,
    "persons": 420,
    "faces": 500,
    "created_at": _TIMESTAMP,
    "updated_at": _TIMESTAMP,
}
_MEASURED_FMR = {
    "value": 0.0001,
    "low": 8.1e-05,
    "high": 0.000124,
    "hits": 1249,
    "trials": 12490000,
    "interval": "jackknife over persons",
}
_OPERATING_POINT = {
    "threshold": 0.9451,
    "stated_fmr": 0.0001,
    "origin": "own",
    "expected_errors": 1249,
    "resolved": True,
    "fmr": _MEASURED_FMR,
    "fnmr": {**_MEASURED_FMR, "value": 0.152, "low": 0.131, "high": 0.176, "hits": 1140, "trials": 7500},
    "expected_fpir": 0.393,
    "measured_fpir": {**_MEASURED_FMR, "value": 0.311, "low": 0.29, "high": 0.333, "hits": 1555, "trials": 5000},
}
_PROPOSED = {
    **_OPERATING_POINT,
    "threshold": 0.9634,
    "stated_fmr": 2.01e-06,
    "expected_errors": 25.1,
    "fmr": {**_MEASURED_FMR, "value": 2e-06, "low": 1.1e-06, "high": 3.7e-06, "hits": 25},
    "fnmr": {**_MEASURED_FMR, "value": 0.681, "low": 0.65, "high": 0.711, "hits": 5108, "trials": 7500},
    "expected_fpir": 0.01,
    "measured_fpir": {**_MEASURED_FMR, "value": 0.0086, "low": 0.005, "high": 0.015, "hits": 43, "trials": 5000},
}
_CALIBRATION = {
    "collection_id": _COLLECTION,
    "contract_id": _SPACE_ID,
    "applied": False,
    "policy": _COLLECTION_OUT["policy"],
    "gallery_size": 5000,
    "persons": 2500,
    "faces": 5000,
    "sampled": False,
    "seed": 0,
    "measured": {
        "genuine": 7500,
        "genuine_persons": 1200,
        "impostor": 12490000,
        "points": [_OPERATING_POINT, _PROPOSED],
        "current": _OPERATING_POINT,
        "proposed": _PROPOSED,
        "beyond_measurement": False,
    },
    "suspicious": [{"first_person_id": _PERSON, "second_person_id": _OTHER_PERSON, "similarity": 0.9921}],
    "groups": None,
    "source": "own gallery on 2026-11-24, 5,000 faces of 2,500 persons (all under live consent); thresholds down to "
    "FMR 1e-06 from there; probability from there. Pack: LFW, all impostor pairs",
}
_ERASED = {"person_id": _PERSON, "person_erased": True, "faces": 3, "consents": 1}
_KEY_OUT = {"id": _KEY, "name": "turnstile", "role": "recognize", "created_at": _TIMESTAMP, "revoked_at": None}
_MODEL = {
    "pack": "builtin",
    "detector": "mtcnn",
    "embedder": "dlib-resnet",
    "contract_id": _SPACE_ID,
    "dimension": 128,
    "preprocessing": "MTCNN five points, least squares to 150x150, mirrored average",
    "licences": {"mtcnn": "MIT", "dlib-resnet": "CC0-1.0"},
    "papers": {"mtcnn": "Zhang, Zhang, Li, Qiao (2016)", "dlib-resnet": "King (2017)"},
    "commercial_use": True,
    "runtime": {"detector": "ONNX Runtime 1.32.0, fp32", "embedder": "OpenVINO, bf16, cosine 0.999983 to fp32"},
    "operating_points": [{"false_match_rate": 0.0001, "threshold": 0.9412}],
    "calibration_source": "LFW, all impostor pairs",
    "margin": 0.01,
}
_AUDIT = {
    "id": "019f0c2e-7000-7abc-8def-001122334455",
    "at": _TIMESTAMP,
    "actor": f"key:{_KEY}",
    "action": "person.registered",
    "request_id": "0d9f4c2a",
    "collection_id": _COLLECTION,
    "person_id": _PERSON,
    "object_id": _CONSENT,
    "detail": {"faces": 1, "rejected": 1},
}


def _build_page(item: dict[str, Any]) -> dict[str, Any]:
    return {"items": [item], "next_cursor": None}


_JOB = {
    "name": "expiry-sweep",
    "interval_s": 60,
    "last_success_at": _TIMESTAMP,
    "consecutive_failures": 0,
    "is_overdue": False,
}

_EXAMPLES: dict[str, tuple[str, Any]] = {
    "register": ("201", _REGISTERED),
    "add_faces": ("201", {**_REGISTERED, "created": False}),
    "recognize": (
        "200",
        {
            "collection_id": _COLLECTION,
            "contract_id": _SPACE_ID,
            "photo": _PHOTO,
            "faces": [{**_DETECTED, **_DECISION, "candidates": [_CANDIDATE]}],
        },
    ),
    "detect": ("200", {"photo": _PHOTO, "faces": [_DETECTED]}),
    "compare": (
        "200",
        {
            **_DECISION,
            "gallery_size": 1,
            "margin": None,
            "false_positive_identification_rate": 0.0001,
            "similarity": 0.9731,
            "probability": 0.9999,
            "first": _DETECTED,
            "second": _DETECTED,
        },
    ),
    "verify": (
        "200",
        {
            **_DECISION,
            "gallery_size": 1,
            "margin": None,
            "false_positive_identification_rate": 0.0001,
            "person_id": _PERSON,
            "similarity": 0.9731,
            "probability": 0.9999,
            "face": _DETECTED,
        },
    ),
    "embeddings": (
        "200",
        {
            "contract_id": _SPACE_ID,
            "dimension": 128,
            "photo": _PHOTO,
            "faces": [{**_DETECTED, "vector": [-0.0613, 0.0542, 0.0471]}],
        },
    ),
    "search": ("200", {**_DECISION, "collection_id": _COLLECTION, "candidates": [_CANDIDATE]}),
    "create_collection": ("201", {**_COLLECTION_OUT, "persons": None, "faces": None}),
    "list_collections": ("200", _build_page({**_COLLECTION_OUT, "persons": None, "faces": None})),
    "read_collection": ("200", _COLLECTION_OUT),
    "change_collection": ("200", {**_COLLECTION_OUT, "persons": None, "faces": None}),
    "calibrate_collection": ("200", _CALIBRATION),
    "create_person": ("201", _PERSON_OUT),
    "list_persons": ("200", _build_page(_PERSON_OUT)),
    "read_person": ("200", _PERSON_OUT),
    "change_person": ("200", _PERSON_OUT),
    "erase_person": ("200", _ERASED),
    "register_vectors": ("201", {"collection_id": _COLLECTION, "registered": 5000}),
    "list_faces": ("200", _build_page(_FACE_OUT)),
    "read_face": ("200", _FACE_OUT),
    "record_consent": ("201", _CONSENT_OUT),
    "list_consents": ("200", _build_page(_CONSENT_OUT)),
    "read_consent": ("200", _CONSENT_OUT),
    "change_consent": ("200", _CONSENT_OUT),
    "withdraw_consent": ("200", _ERASED),
    "live": ("200", {"status": "ok"}),
    "ready": ("200", {"status": "ok", "jobs": [_JOB]}),
    "version": ("200", {"name": "vultus", "version": "0.1.0", "api": "v1"}),
    "models": ("200", _build_page(_MODEL)),
    "create_key": ("201", {**_KEY_OUT, "secret": "vultus_N2Qx...shown once"}),
    "list_keys": ("200", _build_page(_KEY_OUT)),
    "revoke_key": ("200", {**_KEY_OUT, "revoked_at": _TIMESTAMP}),
    "audit": ("200", _build_page(_AUDIT)),
    **build_migration_examples(_COLLECTION_OUT, _PERSON, _FACE, _TIMESTAMP),
}


def add_example(operation_id: str, operation: dict[str, Any]) -> None:
    """Add the example of an operation to its OpenAPI description."""
    if operation_id in _EXAMPLES:
        status, example = _EXAMPLES[operation_id]
        operation["responses"][status]["content"]["application/json"]["example"] = example
