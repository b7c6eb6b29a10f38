"""Multipart forms (RFC 7578) of a body that was read whole: what was sent is taken as it is, or refused by name.

Parsers of streams take the end of the body for the end of the form, guess charsets, and read a part without a file name
as a text; here a form must be closed, a text says its charset or is UTF-8, and the route says which parts are photos.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile

from vultus.api.problems import InvalidRequestError, UnsupportedMediaTypeError
from vultus.errors import MalformedRequestError

if TYPE_CHECKING:
    from vultus.api.shapes import BodyShape

MAX_PARTS = 1000
MAX_PART_HEADER_BYTES = 16 * 2**10
MAX_TEXT_BYTES = 2**20
_UNIQUE_HEADERS = {"content-disposition", "content-type", "content-transfer-encoding"}
_TEXT_PROBE_BYTES = 64
_USUAL_DISPOSITION = re.compile(r'form-data; name="(?P<name>[^"\\]*)"(?:; filename="(?P<filename>[^"\\]*)")?')
_NO_CHARSETS = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"}
"""Of Python's text encodings, those that are no charset of the web; some take long on purpose-made texts."""


class _MemoryFile(BytesIO):
    """A file that Starlette reads at once instead of in a thread."""

    _rolled = False


@dataclass(frozen=True, slots=True)
class ContentType:
    """A `Content-Type`, parsed: charset and boundary are among its options."""

    options: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def charset(self) -> str:
        """The charset it names, or UTF-8."""
        return self.options.get(b"charset", b"utf-8").decode("latin-1")


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a form.

    Attributes:
        name: Of the field.
        filename: None if the part gives none.
        headers: By name in lower case.
        charset: Of a text, None if the part names none.
        content: The bytes, decoded from their transfer encoding.
    """

    name: str
    filename: str | None
    headers: dict[str, str]
    charset: str | None
    content: bytes


def parse_form(body: bytes, content_type: ContentType, shape: BodyShape) -> tuple[tuple[str, str | UploadFile], ...]:
    """Return the fields of a form in their order, photos as files and everything else as text.

    Args:
        body: All of it.
        content_type: The request's, with the boundary.
        shape: Says which fields are photos.

    Raises:
        MalformedRequestError: The body is no complete form.
        InvalidRequestError: A text is not in the charset it claims, or a photo is a text.
        UnsupportedMediaTypeError: A charset or transfer encoding is not known.
    """
    if not (boundary := content_type.options.get(b"boundary")):
        raise MalformedRequestError(
            "The Content-Type names no boundary. Leave this header to the library that builds the form."
        )
    fields: list[tuple[str, str | UploadFile]] = []
    photos, known = shape.photos, shape.model.model_fields
    for start, end in list(_find_parts(body, boundary)):  # all of it first: a form that breaks off is refused as that
        part = _read_part(body, start, end)
        if part.name in photos:
            _ensure_file(part)
            fields.append((part.name, _build_upload(part)))
        elif part.name not in known and part.filename is not None:
            fields.append((part.name, _build_upload(part)))  # to be refused by its name, not by its charset
        else:
            fields.append((part.name, _decode_text(part, part.charset or content_type.charset)))
    return tuple(fields)


def _find_parts(body: bytes, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of every part; what stands before the first and behind the last boundary is no part."""
    delimiter = b"\r\n--" + boundary
    at = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    start: int | None = None
    for _ in range(MAX_PARTS + 1):
        if at == -1:
            raise MalformedRequestError(
                "The form breaks off: the boundary that closes it is missing. Nothing was changed; send it again whole."
            )
        if start is not None:
            yield start, at
        behind = at + len(delimiter)
        if body.startswith(b"--", behind):
            return
        if body.startswith(b"\n", behind):
            raise MalformedRequestError("The lines of the form end in LF alone; end them in CR LF.")
        line_end = body.find(b"\r\n", behind)
        if line_end == -1:
            at = -1  # cut within the line of a boundary
        elif body[behind : min(line_end, behind + 80)].strip(b" \t"):
            raise MalformedRequestError("A boundary of the form is followed by other characters, or stands in a part.")
        else:
            start = line_end + 2
            at = body.find(delimiter, start - 2)
    raise MalformedRequestError(f"The form has more than {MAX_PARTS} parts.")


def _read_part(body: bytes, start: int, end: int) -> _Part:
    head_end = body.find(b"\r\n\r\n", start, min(end, start + MAX_PART_HEADER_BYTES))
    if head_end == -1:
        raise MalformedRequestError("A part of the form has no end of its headers (an empty line ended by CR LF).")
    headers: dict[str, str] = {}
    for line in body[start:head_end].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        key, colon, value = line.partition(b":")
        name = key.strip().decode("latin-1").lower()
        if not colon:
            raise MalformedRequestError("A part of the form has a header without a colon.")
        if name in headers and name in _UNIQUE_HEADERS:
            raise MalformedRequestError(f"A part of the form has two headers {name}.")
        headers[name] = value.strip().decode("latin-1")
    disposition = _parse_disposition(headers.get("content-disposition", ""))
    if not disposition.get(b"name"):
        raise MalformedRequestError(
            'A part of the form has no name; it needs a header such as Content-Disposition: form-data; name="photo".'
        )
    content_type = parse_options_header(headers.get("content-type"))[1]
    filename = disposition.get(b"filename")
    return _Part(
        name=_decode_name(disposition[b"name"]),
        filename=None if filename is None else _decode_name(filename),
        headers=headers,
        charset=content_type[b"charset"].decode("latin-1") if b"charset" in content_type else None,
        content=_undo_transfer_encoding(body[head_end + 4 : end], headers.get("content-transfer-encoding", "binary")),
    )


def _parse_disposition(value: str) -> Mapping[bytes, bytes]:
    """Return the parameters of a part's `Content-Disposition`; what all libraries write takes the short way."""
    if usual := _USUAL_DISPOSITION.fullmatch(value):
        return {name.encode(): text.encode("latin-1") for name, text in usual.groupdict().items() if text is not None}
    return parse_options_header(value)[1]


def _decode_name(name: bytes) -> str:
    """Return the name of a field or file; those of files only stand in the answer, so any charset will do."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _undo_transfer_encoding(content: bytes, encoding: str) -> bytes:
    match encoding.lower():
        case "binary" | "8bit" | "7bit" | "":
            return content
        case "base64":
            try:
                return binascii.a2b_base64(content)
            except binascii.Error:
                raise MalformedRequestError(
                    "A part says Content-Transfer-Encoding: base64, and is not base64."
                ) from None
        case "quoted-printable":
            return quopri.decodestring(content)
        case _:
            raise UnsupportedMediaTypeError(
                f"The Content-Transfer-Encoding '{encoding}' of a part is not known; send its bytes as they are."
            )


def _ensure_file(part: _Part) -> None:
    """Refuse a text in the place of a photo: an address, a data URL, base64."""
    probe = part.content[:_TEXT_PROBE_BYTES]
    if part.filename is None and probe and probe.isascii() and probe.decode().isprintable():
        message = (
            f"is a text, not a photo: send the bytes of the file (with curl: -F {part.name}=@photo.jpg); "
            "addresses, data URLs and base64 are not read"
        )
        raise build_field_error(part.name, message, "not_a_file")


def _build_upload(part: _Part) -> UploadFile:
    return UploadFile(
        _MemoryFile(part.content), size=len(part.content), filename=part.filename or "", headers=Headers(part.headers)
    )


def _decode_text(part: _Part, charset: str) -> str:
    if len(part.content) > MAX_TEXT_BYTES:
        message = f"is {len(part.content):,} bytes long; a text may have {MAX_TEXT_BYTES:,}"
        raise build_field_error(part.name, message, "text_too_long")
    try:
        if charset.lower().replace("-", "_") in _NO_CHARSETS:
            raise LookupError
        return part.content.decode(charset)
    except LookupError:
        raise UnsupportedMediaTypeError(f"{part.name}: the charset '{charset}' is not known; send UTF-8.") from None
    except ValueError:
        message = f"is not valid {charset.upper()}: send UTF-8, or name the charset in the Content-Type of the part"
        raise build_field_error(part.name, message, "charset") from None


def build_field_error(name: str, message: str, code: str) -> InvalidRequestError:
    """Return the error of one field of a body."""
    return InvalidRequestError(
        f"{name}: {message}", errors=[{"path": f"body.{name}", "message": message, "code": code}]
    )
