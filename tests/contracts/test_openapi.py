"""The OpenAPI document: every operation with its role, its example and its errors."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from vultus.api.app import create_app
from vultus.api.guard import PERMISSION_KEY, PHOTOS_KEY, GuardedRoute
from vultus.api.problems import MEDIA_TYPE
from vultus.schemas import calibration, faces, galleries, keys, migrations, recognition, system, vectors
from vultus.schemas.base import ApiModel, Page
from vultus.utils.request_scope import RequestLimits

LIMITS = RequestLimits(max_requests=1, max_bodies_bytes=1)
APP = create_app(None, limits=LIMITS)  # type: ignore[arg-type]  # the description of the API needs no services
SCHEMA = APP.openapi()
OPERATIONS = [
    pytest.param(path, method, id=f"{method.upper()} {path}")
    for path, methods in SCHEMA["paths"].items()
    for method in methods
]
PUBLIC = {"/v1/health/live", "/v1/health/ready"}
ANSWERS: dict[str, Any] = {
    "RegistrationOut": recognition.RegistrationOut,
    "RecognitionOut": recognition.RecognitionOut,
    "DetectionOut": recognition.DetectionOut,
    "ComparisonOut": recognition.ComparisonOut,
    "VerificationOut": recognition.VerificationOut,
    "EmbeddingsOut": recognition.EmbeddingsOut,
    "SearchOut": recognition.SearchOut,
    "CalibrationOut": calibration.CalibrationOut,
    "CollectionOut": galleries.CollectionOut,
    "PersonOut": galleries.PersonOut,
    "FaceOut": faces.FaceOut,
    "ConsentOut": galleries.ConsentOut,
    "ErasedOut": galleries.ErasedOut,
    "KeyOut": keys.KeyOut,
    "NewKeyOut": keys.NewKeyOut,
    "VectorsOut": vectors.VectorsOut,
    "AuditOut": system.AuditOut,
    "ModelOut": system.ModelOut,
    "HealthOut": system.HealthOut,
    "ReadinessOut": system.ReadinessOut,
    "VersionOut": system.VersionOut,
    "TransitionOut": migrations.TransitionOut,
    "SwitchedOut": migrations.SwitchedOut,
    "FinishedOut": migrations.FinishedOut,
    "SuppliesOut": migrations.SuppliesOut,
    "LeftBehindOut": migrations.LeftBehindOut,
    "ContractComparisonOut": migrations.ContractComparisonOut,
}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_requires_a_permission_unless_it_is_public(path: str, method: str) -> None:
    operation = SCHEMA["paths"][path][method]

    assert (PERMISSION_KEY in operation) == (path not in PUBLIC)
    assert ("401" in operation["responses"]) == (path not in PUBLIC)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_response_has_a_valid_example(path: str, method: str) -> None:
    responses = SCHEMA["paths"][path][method]["responses"]
    (good,) = [status for status in responses if status.startswith("2")]
    if good == "204":
        return
    content = responses[good]["content"]["application/json"]
    model = content["schema"]["$ref"].rsplit("/", 1)[1]

    if model.startswith("Page_"):
        assert set(content["example"]) == set(Page.model_fields)
        for item in content["example"]["items"]:
            ANSWERS[model[5:-1]].model_validate(item)
    else:
        ANSWERS[model].model_validate(content["example"])


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_error_is_a_problem_with_an_example(path: str, method: str) -> None:
    for status, response in SCHEMA["paths"][path][method]["responses"].items():
        if not status.startswith("2"):
            assert response["content"][MEDIA_TYPE]["examples"]


def test_every_post_that_writes_accepts_an_idempotency_key_or_refuses_it() -> None:
    reading = {"recognize", "detect", "compare", "verify", "embeddings", "search"}
    refusing = {"create_key", "rotate_key", "supply_photos"}
    posts = [methods["post"] for methods in SCHEMA["paths"].values() if "post" in methods]

    accepting = {
        post["operationId"]
        for post in posts
        if {"idempotency-key"} & {one["name"].lower() for one in post.get("parameters", ()) if one["in"] == "header"}
    }
    codes = {post["operationId"]: str(post["responses"]) for post in posts}

    assert accepting == codes.keys() - reading - refusing
    assert {name for name in codes if "idempotency_mismatch" in codes[name]} == accepting
    assert {name for name in codes if "idempotency_not_supported" in codes[name]} == refusing


def test_every_patch_accepts_merge_patches() -> None:
    patches = [methods["patch"] for methods in SCHEMA["paths"].values() if "patch" in methods]

    accepted = [patch["requestBody"]["content"] for patch in patches]
    assert len(accepted) == 3
    assert all({"application/json", "application/merge-patch+json"} == content.keys() for content in accepted)
    assert all("RFC 7396" in patch["description"] for patch in patches)


def test_every_route_is_guarded() -> None:
    contexts = [context for context in iter_route_contexts(APP.routes) if (context.path or "").startswith("/v1")]

    assert len(contexts) == len(OPERATIONS)
    assert all(isinstance(context.original_route, GuardedRoute) for context in contexts)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_form_says_that_it_has_photos(path: str, method: str) -> None:
    """Or nothing would be refused before its body is read."""
    operation = SCHEMA["paths"][path][method]

    assert (PHOTOS_KEY in operation) == ("multipart/form-data" in operation.get("requestBody", {}).get("content", {}))


def test_a_field_without_an_example_is_refused() -> None:
    class Undescribed(ApiModel):
        note: str

    with pytest.raises(TypeError, match="no example"):
        Undescribed.build_example()
