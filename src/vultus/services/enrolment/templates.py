"""Writing what a face becomes: a template of every contract its collection has, and a crop if it keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.domain import NewFace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Work
    from vultus.domain import Collection, Consent, Face
    from vultus.services.crop_vault import CropVault
    from vultus.services.enrolment.photo_screening import JudgedFace


async def enrol(
    work: Work, home: Collection, consent: Consent, judged: Sequence[JudgedFace], vault: CropVault
) -> tuple[Face, ...]:
    """Enrol faces under a consent; return them in their order.

    A face that the pipeline of the collection's second contract does not see has no template of it, and is recorded
    as not carried over.
    """
    templates = [_template(home, consent, face) for face in judged]
    faces = await work.faces.add_many(templates)
    if home.second_contract_id is not None:
        faces = await _double(work, home.second_contract_id, templates, faces, judged)
    if home.policy.keep_crops:
        crops = [(face, one.face.crop) for face, one in zip(faces, judged, strict=True)]
        await vault.keep(work, [(face, crop) for face, crop in crops if crop is not None], consent)
    return faces


async def _double(
    work: Work, second_id: str, templates: Sequence[NewFace], faces: Sequence[Face], judged: Sequence[JudgedFace]
) -> tuple[Face, ...]:
    """Add the templates of the second contract, with the first one's quality, by which the photo was accepted."""
    seen = [(template, one.second) for template, one in zip(templates, judged, strict=True)]
    await work.faces.add_many(
        [replace(template, contract_id=second_id, vector=face.vector) for template, face in seen if face is not None]
    )
    for template, face in seen:
        if face is None:
            await work.carrying.fail(template.collection_id, template.id, second_id, "no_face")
    doubled = {template.id for template, face in seen if face is not None}
    return tuple(
        replace(face, contracts=tuple(sorted((*face.contracts, second_id)))) if face.id in doubled else face
        for face in faces
    )


def _template(home: Collection, consent: Consent, judged: JudgedFace) -> NewFace:
    return NewFace(
        collection_id=home.id,
        person_id=consent.person_id,
        consent_id=consent.id,
        consent_expires_at=consent.expires_at,
        contract_id=home.contract_id,
        vector=judged.face.vector,
        quality=judged.face.quality,
        score=judged.face.face.score,
        source_sha256=judged.sha256,
    )
