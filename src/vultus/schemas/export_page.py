"""What is held about a person, as a page for people: self-contained, without a script."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from vultus.utils.characters import escape_text
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.schemas.exports import PersonExportOut

NO_VALUE = "–"


def _show(value: object) -> str:
    """Return a value as text; the template escapes it for HTML afterwards."""
    if value is None or value == "":
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return format_moment(value, "seconds")
    return escape_text(str(value), line_breaks=True)


TEMPLATES = Environment(
    loader=PackageLoader("vultus.schemas"),
    autoescape=True,  # names and purposes are whatever somebody wrote
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_export(held: PersonExportOut) -> str:
    """Return a page for people, in English: HTML that loads nothing, runs nothing and prints."""
    person = held.person
    purposes = {consent.id: consent.purpose for consent in held.consents}
    values = {
        "name": _show(person.name or person.external_id or person.id),
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "person": [
            ("Id here", person.id),
            ("Id of whoever runs the system", person.external_id),
            ("Name", person.name),
            *sorted(person.metadata.items()),
            ("Recorded", person.created_at),
            ("Changed", person.updated_at),
        ],
        "consents": [
            (
                one.purpose,
                one.granted_at,
                one.expires_at,
                one.withdrawn_at,
                one.recorded_by,
                one.evidence_ref,
                one.seen_at,
            )
            for one in held.consents
        ],
        "faces": [
            (
                face.created_at,
                purposes.get(face.consent_id),
                f"{face.quality.size_px:.0f}",
                f"{face.quality.sharpness:.0f}",
                f"{face.quality.yaw_deg:.0f}°, {face.quality.pitch_deg:.0f}°",
                face.crop_kept,
                face.source_sha256,
            )
            for face in held.faces
        ],
        "decisions": [(one.at, one.actor, one.kind, one.verdict.value, one.band) for one in held.decisions],
        "sightings": [
            (one.data.get("at"), one.type, one.data.get("origin"), one.data.get("origin_id")) for one in held.sightings
        ],
        "receivers": [(one.name, one.id) for one in held.receivers],
        "audit": [(one.at, one.actor, one.action, "; ".join(_list_detail(one.detail))) for one in held.audit],
    }
    shown = {
        name: [tuple(map(_show, row)) for row in rows] if isinstance(rows, list) else rows
        for name, rows in values.items()
    }
    return TEMPLATES.get_template("person.html").render(held=held, **shown)


def _list_detail(detail: object, name: str = "") -> Iterator[str]:
    """Yield the values of nested JSON, each with its dotted name."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            yield from _list_detail(value, f"{name}.{key}" if name else str(key))
    elif isinstance(detail, list):
        for at, value in enumerate(detail, 1):
            yield from _list_detail(value, f"{name} {at}")
    else:
        yield f"{name}: {_show(detail)}"
