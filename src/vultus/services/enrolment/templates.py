"""Storage of enrolled faces: a template per embedding space of the collection, and a crop if it keeps them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.domain import NewFace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import UnitOfWork
    from vultus.domain import Collection, Consent, Face
    from vultus.services.crop_vault import CropVault
    from vultus.services.enrolment.photo_screening import AcceptedFace


async def enrol_faces(
    work: UnitOfWork, collection: Collection, consent: Consent, accepted: Sequence[AcceptedFace], vault: CropVault
) -> tuple[Face, ...]:
    """Enrol faces under a consent, whose person is seen with that; return them in the order given.

    For a face that was not detected for the collection's second embedding space, a backfill failure is recorded in
    place of the second template.
    """
    templates = [_build_template(collection, consent, face) for face in accepted]
    faces = await work.templates.add_templates(templates)
    if collection.second_space_id is not None:
        faces = await _add_second_templates(work, collection.second_space_id, templates, faces, accepted)
    if collection.policy.keep_crops:
        crops = [(face, one.face.crop) for face, one in zip(faces, accepted, strict=True)]
        await vault.save_crops(work, [(face, crop) for face, crop in crops if crop is not None], consent)
    if collection.unseen_days is not None:
        await work.consents.mark_seen([consent.person_id], datetime.now(UTC))
    return faces


async def _add_second_templates(
    work: UnitOfWork,
    second_space_id: str,
    templates: Sequence[NewFace],
    faces: Sequence[Face],
    accepted: Sequence[AcceptedFace],
) -> tuple[Face, ...]:
    """Add templates in the second embedding space, with the quality by which the photos were accepted."""
    pairs = [(template, one.second) for template, one in zip(templates, accepted, strict=True)]
    await work.templates.add_templates(
        [
            replace(template, space_id=second_space_id, vector=face.vector)
            for template, face in pairs
            if face is not None
        ]
    )
    for template, face in pairs:
        if face is None:
            await work.backfill.add_failure(template.collection_id, template.id, second_space_id, "no_face")
    dual_written = {template.id for template, face in pairs if face is not None}
    return tuple(
        replace(face, contracts=tuple(sorted((*face.contracts, second_space_id)))) if face.id in dual_written else face
        for face in faces
    )


def _build_template(collection: Collection, consent: Consent, accepted: AcceptedFace) -> NewFace:
    return NewFace(
        collection_id=collection.id,
        person_id=consent.person_id,
        consent_id=consent.id,
        consent_expires_at=consent.expires_at,
        space_id=collection.space_id,
        vector=accepted.face.vector,
        quality=accepted.face.quality,
        score=accepted.face.face.score,
        source_sha256=accepted.sha256,
    )
