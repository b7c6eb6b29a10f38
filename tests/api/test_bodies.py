"""Bodies as clients write them: each is read for what it is, or refused by name, and never for something else."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.faces import portrait

from vultus.api import bodies

if TYPE_CHECKING:
    import httpx
    from tests.api.conftest import Api

PEOPLE = "/v1/collections/default/persons"
FORM = {"Content-Type": "multipart/form-data; boundary=XbX"}
JSON = {"Content-Type": "application/json"}
END = b"--XbX--\r\n"


def part(name: str, value: bytes, extra: str = "", *, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'Content-Disposition: form-data; name="{name}"{named}{extra}'
    return b"--XbX\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def photo(name: str = "photo", **changes: Any) -> bytes:
    return part(name, portrait(), **{"filename": "a.jpg", **changes})


async def post(
    api: Api, path: str, content: bytes, status: int, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    answer: httpx.Response = await api.client.post(path, content=content, headers=FORM if headers is None else headers)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"This is a form.\r\n" + photo() + END + b"bye", id="preamble and epilogue"),
        pytest.param(b"\r\n" + photo() + END, id="leading line"),
        pytest.param((photo() + END).replace(b"--XbX\r\n", b"--XbX \t\r\n"), id="blanks behind a boundary"),
        pytest.param(photo() + b"--XbX--", id="no line end at the end"),
        pytest.param(photo(filename=None) + END, id="no file name"),
        pytest.param(photo(filename=None, extra="\r\nContent-Type: application/octet-stream") + END, id="octets"),
        pytest.param(part("photo", portrait(scale=1.5) + bytes(2_000_000)) + END, id="no file name, 2 MB"),
        pytest.param(photo().replace(b"form-data; name", b"form-data;\r\n name") + END, id="folded header"),
        pytest.param(
            part("photo", base64.encodebytes(portrait()), "\r\nContent-Transfer-Encoding: base64") + END, id="base64"
        ),
        pytest.param(photo(filename="été 日本.jpg") + END, id="file name in UTF-8"),
        pytest.param(photo(filename="X").replace(b'"X"', b'"\xe9.jpg"') + END, id="file name in Latin-1"),
    ],
)
async def test_lawful_forms_are_read(api: Api, body: bytes) -> None:
    found = await post(api, "/v1/detect", body, 200)

    assert len(found["faces"]) == 1


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (photo(), "breaks off"),
        (photo()[:-30], "breaks off"),
        (b"--XbX\r\nContent-Dispo", "breaks off"),
        (photo() + b"--XbX-", "breaks off"),
        (photo() + b"--XbX", "breaks off"),
        (b"", "breaks off"),
        (part("collection", b"default") + photo() + b"--XbX\r\n" + b"Content-Disposition: form-da", "breaks off"),
        (b"--XbX\r\n" + END, "no end of its headers"),
        ((photo() + END).replace(b"\r\n", b"\n"), "end them in CR LF"),
        (b"--XbX\r\nContent-Type: image/jpeg\r\n\r\nx\r\n" + END, "has no name"),
        (b"--XbX\r\nContent-Disposition\r\n\r\nx\r\n" + END, "without a colon"),
        (photo(extra="\r\nContent-Disposition: form-data; name=other") + END, "two headers content-disposition"),
        (part("photo", b"a\r\n--XbX nearly") + END, "stands in a part"),
        (part("collection", b"x") * 1001 + END, "more than 1000 parts"),
    ],
)
async def test_a_form_that_is_none_is_400_and_says_why(api: Api, body: bytes, detail: str) -> None:
    refused = await post(api, "/v1/recognize", body, 400)

    assert refused["code"] == "malformed_request"
    assert detail in refused["detail"]


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("/v1/recognize", photo() + photo(), "body.photo", "given twice; send it once"),
        ("/v1/embeddings", photo() * 3, "body.photo", "given 3 times; send it once"),
        ("/v1/compare", photo("first") * 2 + photo("second"), "body.first", "given twice; send it once"),
        (
            "/v1/register",
            photo() + part("name", b"Ada") + part("name", b"Eve"),
            "body.name",
            "given twice; send it once",
        ),
        ("/v1/detect", part("photo", b"http://127.0.0.1:1/a.jpg"), "body.photo", "is a text, not a photo"),
        ("/v1/detect", part("photo", b"data:image/jpeg;base64,/9j/4AAQ"), "body.photo", "is a text, not a photo"),
        ("/v1/detect", part("image", portrait(), filename="a"), "body.photo", "with curl: -F photo=@photo.jpg"),
        ("/v1/register", photo() + part("name", b"Jos\xe9"), "body.name", "is not valid UTF-8"),
        ("/v1/register", photo() + part("name", b"a" * (2**20 + 1)), "body.name", "1,048,577 bytes long"),
        ("/v1/register", photo() + part("metadata", b"{"), "body.metadata", "line 1, column 1: EOF"),
        ("/v1/register", photo() + part("metadata", b'{"a":1,"a":2}'), "body.metadata", "the key 'a' is given twice"),
    ],
)
async def test_a_field_that_cannot_be_read_is_named(api: Api, path: str, body: bytes, field: str, message: str) -> None:
    refused = await post(api, path, body + END, 422)

    found = {error["path"]: error["message"] for error in refused["errors"]}
    assert message in found[field]
    assert field.removeprefix("body.") in refused["detail"]


@pytest.mark.parametrize("name", ["image", "file", "photos", "photo[]", "Photo", "picture"])
async def test_another_name_for_the_photo_is_answered_with_the_right_one(api: Api, name: str) -> None:
    refused = await post(api, "/v1/detect", photo(name) + END, 422)

    assert {
        "path": f"body.{name}",
        "message": f"unknown field '{name}'; did you mean 'photo'?",
        "code": "extra_forbidden",
    } in (refused["errors"])


@pytest.mark.parametrize(
    ("value", "charset", "name"),
    [
        ("José", "utf-8", "José"),
        ("José", "ISO-8859-1", "José"),
        ("山田", "Shift_JIS", "山田"),
    ],
)
async def test_a_text_is_read_in_the_charset_its_part_names(api: Api, value: str, charset: str, name: str) -> None:
    consent = part("consent_purpose", b"Tests") + part("consent_recorded_by", b"tests")
    named = part("name", value.encode(charset), f"\r\nContent-Type: text/plain; charset={charset}")

    found = await post(api, "/v1/register", photo() + consent + named + END, 201)

    assert found["person"]["name"] == name


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (photo() + END, {"Content-Type": "multipart/form-data; charset=x-nonsense; boundary=XbX"}),
        (photo() + END, {"Content-Type": "multipart/form-data; charset=unicode_escape; boundary=XbX"}),
        (photo(extra="\r\nContent-Transfer-Encoding: x-uuencode") + END, FORM),
        (photo() + END, FORM | {"Content-Encoding": "gzip"}),
    ],
)
async def test_an_encoding_that_is_not_known_is_415(api: Api, body: bytes, headers: dict[str, str]) -> None:
    refused = await post(api, "/v1/recognize", part("collection", b"default") + body, 415, headers)

    assert refused["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "image/jpeg",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/mixed; boundary=XbX",
        "",
    ],
)
async def test_a_photo_in_another_kind_of_body_is_answered_with_the_right_one(api: Api, media_type: str) -> None:
    refused = await post(api, "/v1/compare", photo() + END, 415, {"Content-Type": media_type} if media_type else {})

    assert refused["code"] == "unsupported_media_type"
    assert "multipart/form-data" in refused["detail"]
    assert "-F first=@first.jpg -F second=@second.jpg /v1/compare" in refused["detail"]


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain;charset=UTF-8", ""])
async def test_json_without_its_content_type_is_answered_with_it(api: Api, media_type: str) -> None:
    headers = {"Content-Type": media_type} if media_type else {}

    refused = await post(api, "/v1/collections", b'{"name":"q"}', 415, headers)

    assert "Content-Type: application/json" in refused["detail"]


@pytest.mark.parametrize(
    "moment", [1893456000, 1893456000000, 2030, 0.5, True, "1893456000", "2030", "20300101", " 7 "]
)
async def test_a_number_is_no_moment(api: Api, moment: object) -> None:
    body = {"name": "Ada", "consent": {"purpose": "Tests", "recorded_by": "tests", "expires_at": moment}}

    refused = await api.client.post(PEOPLE, json=body)
    asked = await api.client.get("/v1/audit", params={"since": str(moment)})

    assert refused.json()["errors"] == [{
        "path": "body.consent.expires_at", "code": "datetime_type",
        "message": "must be a date and time with a time zone, as in 2030-01-01T00:00:00Z",
    }]  # fmt: skip
    assert asked.status_code == 422


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"name":\n "q",}', "is not valid JSON: line 2, column 6: trailing comma"),
        (b'{"name":"q"} {}', "line 1, column 14: trailing characters"),
        (b'{"name":"one","name":"two"}', "the key 'name' is given twice"),
        ('{"name":"q"}'.encode("utf-16"), "is in UTF-16; send UTF-8"),
        ('{"name":"q"}'.encode("utf-32-le"), "is in UTF-32-LE; send UTF-8"),
        (b'{"name":"q","retention_days":' + b"9" * 5000 + b"}", "number out of range"),
        (b'{"name":"\\ud800"}', "line 1, column 16: unexpected end of hex escape"),
        (b'{"name":NaN}', "line 1, column 9: expected value"),
        (b'{"name":"\xe9"}', "invalid unicode code point"),
        (b"[" * 5000, "recursion limit exceeded"),
        (json.dumps(json.dumps({"name": "q"})).encode(), "must be an object"),
    ],
)
async def test_what_is_no_json_says_where_and_why(api: Api, body: bytes, message: str) -> None:
    refused = await post(api, "/v1/collections", body, 422, JSON)

    assert message in refused["detail"]
    assert refused["errors"][0]["path"] == "body"


async def test_json_with_a_byte_order_mark_is_read(api: Api) -> None:
    found = await post(api, "/v1/collections", b'\xef\xbb\xbf{"name":"bom"}', 201, JSON)

    assert found["name"] == "bom"


async def test_long_json_is_read_in_a_thread_to_the_same_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    right = {"name": "Ada", "consent": {"purpose": "Tests", "recorded_by": "tests"}}
    wrong = {**right, "nam": 1}
    short = [(await api.client.post(PEOPLE, json=body)).json() for body in (right, wrong)]
    monkeypatch.setattr(bodies, "LONG_JSON_BYTES", 10)

    long = [(await api.client.post(PEOPLE, json=body)).json() for body in (right, wrong)]

    assert long[0]["name"] == short[0]["name"] == "Ada"
    assert long[1]["errors"] == short[1]["errors"]
    assert "did you mean 'name'?" in long[1]["detail"]


async def test_json_of_very_many_values_is_refused_unread(api: Api) -> None:
    path = "/v1/collections/default/vectors"

    refused = await post(api, path, b'{"persons":[' + b"[]," * 250_000 + b"[]]}", 413, JSON)

    assert refused["code"] == "body_too_large"


async def test_of_very_many_wrong_fields_the_first_are_listed(api: Api) -> None:
    """Each costs more than what was wrong: a megabyte of unknown names stopped everybody for two seconds."""
    wrong, unreadable = [b"{" + b",".join(b'"k%d":0' % at for at in range(count)) + b"}" for count in (300, 30_000)]

    listed = (await post(api, "/v1/collections/default/vectors", wrong, 422, JSON))["errors"]
    counted = (await post(api, "/v1/collections/default/vectors", unreadable, 422, JSON))["errors"]

    assert len(listed) == 101
    assert listed[-1] == {"path": "body", "message": "203 more fields are wrong", "code": "more_fields"}
    assert [one["message"] for one in counted] == ["30,003 fields are wrong; send fewer rows to see which"]


@pytest.mark.parametrize(
    "path", ["/v1/collections", PEOPLE, "/v1/collections/default/vectors", "/v1/search", "/v1/keys"]
)
async def test_the_examples_of_the_documentation_can_be_sent(api: Api, path: str) -> None:
    schema = (await api.client.get("/openapi.json")).json()
    post_ = schema["paths"][path.replace("default", "{collection}")]["post"]
    example = post_["requestBody"]["content"]["application/json"]["example"]

    answer = await api.client.post(path, json=example)

    assert answer.status_code in {200, 201}, answer.text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=1&limit=2", "query.limit: given twice; send it once"),
        ("limt=3", "query.limt: unknown query parameter 'limt'; did you mean 'limit'?"),
        ("_=1700000000", "query._: unknown query parameter '_'"),
    ],
)
async def test_a_query_parameter_given_twice_or_unknown_is_refused(api: Api, query: str, message: str) -> None:
    refused = await api.client.get(f"{PEOPLE}?{query}")

    assert (refused.status_code, refused.json()["detail"]) == (422, message)


async def test_an_idempotency_key_given_twice_is_refused(api: Api) -> None:
    body = {"name": "Ada", "consent": {"purpose": "Tests", "recorded_by": "tests"}}

    refused = await api.client.post(PEOPLE, json=body, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])

    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "twice")


async def test_an_unknown_field_is_named_with_the_nearest_one_at_any_depth(api: Api) -> None:
    body = {"name": "q", "policy": {"enrol": {"min_sharpnes": 3}}, "retention": 7}

    refused = await post(api, "/v1/collections", json.dumps(body).encode(), 422, JSON)

    messages = {error["path"]: error["message"] for error in refused["errors"]}
    assert messages["body.policy.enrol.min_sharpnes"] == "unknown field 'min_sharpnes'; did you mean 'min_sharpness'?"
    assert messages["body.retention"] == "unknown field 'retention'; did you mean 'retention_days'?"
