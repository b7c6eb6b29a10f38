"""The OpenAPI document: every operation with its role, its example and its errors."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from tests.contracts.test_errors import tree
from tests.snapshot import SNAPSHOT, render_description
from vultus.api.app import create_app
from vultus.api.guard import ANY_KEY, PERMISSION_KEY, PHOTOS_KEY, GuardedRoute, find_body_shape
from vultus.api.problems import MEDIA_TYPE
from vultus.domain import decision
from vultus.domain.decision import QUALITY_FAULTS, VERDICT_REASONS
from vultus.errors import VultusError
from vultus.schemas import (
    calibration,
    decisions,
    erasures,
    events,
    exports,
    faces,
    galleries,
    keys,
    live,
    migrations,
    recognition,
    sources,
    system,
    vectors,
    webhooks,
)
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
SHAPES = {
    route.name: shape for route in APP.routes if isinstance(route, GuardedRoute) and (shape := find_body_shape(route))
}
PUBLIC = {"/v1/health/live", "/v1/health/ready"}
ANSWERS: dict[str, Any] = {
    "Registration": recognition.RegistrationOut,
    "Screening": recognition.ScreeningOut,
    "Recognition": recognition.RecognitionOut,
    "Detection": recognition.DetectionOut,
    "Comparison": recognition.ComparisonOut,
    "Verification": recognition.VerificationOut,
    "Embeddings": recognition.EmbeddingsOut,
    "Search": recognition.SearchOut,
    "Calibration": calibration.CalibrationOut,
    "CalibrationState": calibration.CalibrationStateOut,
    "Collection": galleries.CollectionOut,
    "Person": galleries.PersonOut,
    "PersonExport": exports.PersonExportOut,
    "Face": faces.FaceOut,
    "Consent": galleries.ConsentOut,
    "Erased": galleries.ErasedOut,
    "Erasure": erasures.ErasureOut,
    "Receipt": erasures.ReceiptOut,
    "Key": keys.KeyOut,
    "NewKey": keys.NewKeyOut,
    "Ticket": live.TicketOut,
    "Source": sources.SourceOut,
    "Vectors": vectors.VectorsOut,
    "Audit": system.AuditOut,
    "DecisionRecord": decisions.DecisionRecordOut,
    "DecisionExplanation": decisions.DecisionExplanationOut,
    "Model": system.ModelOut,
    "Load": system.LoadOut,
    "Events": events.EventsOut,
    "Webhook": webhooks.WebhookOut,
    "NewWebhook": webhooks.NewWebhookOut,
    "WebhookTest": webhooks.WebhookTestOut,
    "Delivery": webhooks.DeliveryOut,
    "Replay": webhooks.ReplayOut,
    "Health": system.HealthOut,
    "Readiness": system.ReadinessOut,
    "Version": system.VersionOut,
    "Transition": migrations.TransitionOut,
    "Switched": migrations.SwitchedOut,
    "Finished": migrations.FinishedOut,
    "Supplies": migrations.SuppliesOut,
    "LeftBehind": migrations.LeftBehindOut,
    "ContractComparison": migrations.ContractComparisonOut,
}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_operation_requires_a_permission_unless_it_is_public(path: str, method: str) -> None:
    operation = SCHEMA["paths"][path][method]

    assert len({PERMISSION_KEY, ANY_KEY} & operation.keys()) == (path not in PUBLIC)
    assert ("401" in operation["responses"]) == (path not in PUBLIC)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_response_has_a_valid_example(path: str, method: str) -> None:
    responses = SCHEMA["paths"][path][method]["responses"]
    (good,) = [status for status in responses if status.startswith("2")]
    if good == "204":
        return
    if responses[good]["content"].keys() & {"text/event-stream", "image/jpeg"}:
        return
    content = responses[good]["content"]["application/json"]
    model = content["schema"]["$ref"].rsplit("/", 1)[1]

    if model.endswith("Page"):
        assert set(content["example"]) == set(Page.model_fields)
        for item in content["example"]["items"]:
            ANSWERS[model.removesuffix("Page")].model_validate(item)
    else:
        ANSWERS[model].model_validate(content["example"])


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_error_is_a_problem_with_an_example(path: str, method: str) -> None:
    for status, response in SCHEMA["paths"][path][method]["responses"].items():
        if not status.startswith("2"):
            assert response["content"][MEDIA_TYPE]["examples"]


def test_every_post_that_writes_accepts_an_idempotency_key_or_refuses_it() -> None:
    reading = {"recognize", "detect", "compare", "verify", "compute_embeddings", "search_by_vector"}
    reading |= {"screen_photos"}
    refusing = {"create_webhook", "rotate_webhook", "send_test_event", "replay_deliveries"}
    refusing |= {"create_key", "create_ticket", "rotate_key", "supply_photos"}
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
    assert len(accepted) == 5
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


def find_members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from find_members(inner)


def test_photos_are_files_and_everything_else_of_a_form_a_text() -> None:
    forms = {name: schema for name, schema in SCHEMA["components"]["schemas"].items() if name.endswith("Form")}

    assert len(forms) == 9
    for name, form in forms.items():
        for field, described in form["properties"].items():
            inner = described.get("items", described)
            is_photo = field in {"photo", "first", "second"}
            assert (inner.get("format") == "binary") == is_photo, (name, field)
            assert "anyOf" not in described, (name, field)
        assert next(iter(form["properties"])) in {"photo", "first"}
    assert forms["RegisterForm"]["properties"]["metadata"]["type"] == "string"


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if not shape.is_form])
def test_the_example_of_a_body_can_be_sent(name: str) -> None:
    methods = [methods for methods in SCHEMA["paths"].values() if methods.get("post", {}).get("operationId") == name]
    for operation in methods:
        example = operation["post"]["requestBody"]["content"]["application/json"]["example"]

        SHAPES[name].model.model_validate(example)


def test_limits_are_words_of_json_schema() -> None:
    members = {name for name, _ in find_members(SCHEMA["components"]["schemas"])}

    assert {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"} <= members
    assert not {"ge", "le", "gt", "lt", "contentMediaType"} & members


def test_codes_and_reasons_are_listed() -> None:
    schemas = SCHEMA["components"]["schemas"]

    assert {error.code for error in tree() if error is not VultusError} <= {
        *schemas["Problem"]["properties"]["code"]["enum"]
    }
    for model, field in (("RecognizedFace", "reasons"), ("Rejected", "reasons")):
        listed = set(schemas[model]["properties"][field]["items"]["enum"])
        assert {*QUALITY_FAULTS, "spoof"} <= listed
    assert "person.erased" in schemas["Audit"]["properties"]["action"]["enum"]


def test_every_reason_of_a_decision_is_listed() -> None:
    listed = {*QUALITY_FAULTS, *VERDICT_REASONS}
    words = set()
    for function in (decision.decide_verdict, decision.find_quality_faults):
        (parsed,) = ast.parse(inspect.getsource(function)).body
        assert isinstance(parsed, ast.FunctionDef)
        words |= {node.value for part in parsed.body[1:] for node in ast.walk(part) if isinstance(node, ast.Constant)}

    assert {word for word in words if isinstance(word, str)} == listed


def test_tags_are_described_and_operations_named_by_a_verb() -> None:
    tags = {tag for methods in SCHEMA["paths"].values() for operation in methods.values() for tag in operation["tags"]}
    one_word = {"register", "recognize", "detect", "compare", "verify"}

    assert tags == {tag["name"] for tag in SCHEMA["tags"]}
    assert {name for name in codes_of_operations() if "_" not in name} == one_word


def codes_of_operations() -> set[str]:
    return {operation["operationId"] for methods in SCHEMA["paths"].values() for operation in methods.values()}


def test_the_description_is_the_committed_one() -> None:
    """Clients are generated from it: `make openapi` writes a change that is meant, which is committed with the code."""
    changes = difflib.unified_diff(
        SNAPSHOT.read_text(encoding="utf-8").splitlines(), render_description(SCHEMA).splitlines(), n=3, lineterm=""
    )

    assert not list(changes), "the API changed: read the difference, run `make openapi`, commit docs/openapi.json"


def test_a_field_without_an_example_is_refused() -> None:
    class Undescribed(ApiModel):
        note: str

    with pytest.raises(TypeError, match="no example"):
        Undescribed.build_example()
