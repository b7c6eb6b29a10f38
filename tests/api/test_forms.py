"""Forms: one that is malformed, truncated or of another kind is refused, and nothing of it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from fastapi.params import Form
from tests.api.conftest import CONSENT
from tests.faces import portrait

from vultus.api.app import ROUTERS
from vultus.api.guard import GuardedRoute

if TYPE_CHECKING:
    from tests.api.conftest import Api


async def test_a_malformed_form_gets_a_problem_of_its_own(api: Api) -> None:
    answer = await api.client.post(
        "/v1/detect", content=b"--x\r\nnonsense", headers={"Content-Type": "multipart/form-data"}
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def form_routes() -> list[str]:
    """Return the path of every route that reads a form."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, GuardedRoute)]
    return [route.path for route in routes if route.body_field and isinstance(route.body_field.field_info, Form)]


CLOSING = b"\r\n--x--"


def whole_form() -> bytes:
    """Return a form with every field any route requires, the end of the consent last."""
    files = [(name, portrait()) for name in ("photo", "first", "second")]
    texts = {"name": "Ada", **CONSENT, "person_id": str(uuid4()), "consent_expires_at": "2030-01-01T00:00:00Z"}
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n\r\n'.encode() + content
        for name, content in files
    ]
    parts += [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode() for name, text in texts.items()
    ]
    return b"\r\n".join(parts) + CLOSING


@pytest.mark.parametrize("path", form_routes())
async def test_a_form_without_its_end_is_refused_by_every_route_that_reads_one(api: Api, path: str) -> None:
    url = path.format(collection="default", person=uuid4())

    answer = await api.client.post(
        url,
        content=whole_form().removesuffix(CLOSING),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "breaks off" in answer.json()["detail"]


@pytest.mark.parametrize("missing", [*range(1, 12), 60, 75, 80, 150, 5_000])
async def test_a_registration_truncated_anywhere_stores_nothing(api: Api, missing: int) -> None:
    fields = {"name": "Ada", **CONSENT, "consent_expires_at": "2030-01-01T00:00:00Z"}
    request = api.client.build_request("POST", "/v1/register", data=fields, files={"photo": portrait()})
    boundary = request.headers["content-type"].partition("boundary=")[2]
    parts = request.read().removesuffix(b"\r\n").split(f"--{boundary}".encode())
    photo_first = f"--{boundary}".encode().join([parts[0], parts[-2], *parts[1:-2], parts[-1]])
    headers = {"Content-Type": request.headers["content-type"]}

    cut = await api.client.post("/v1/register", content=photo_first[:-missing], headers=headers)
    stored = (await api.client.get("/v1/collections/default/persons")).json()["items"]
    whole = await api.client.post("/v1/register", content=photo_first, headers=headers)

    assert (cut.status_code, cut.json()["code"], stored) == (400, "malformed_request", [])
    assert whole.json()["consent"]["expires_at"] == "2030-01-01T00:00:00Z"


async def test_a_json_route_does_not_parse_a_long_body_as_a_form(api: Api) -> None:
    answer = await api.client.post(
        "/v1/collections", content=b"x" * 300_000, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
