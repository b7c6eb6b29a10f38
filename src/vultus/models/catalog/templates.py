"""Where the landmarks of detectors fall in the crops that embedders were trained on."""

from __future__ import annotations

from vultus.errors import NotFoundError
from vultus.models.alignment import Template

ANY = "any"

ARCFACE_112 = Template(
    side=112,
    points=((38.7946, 52.1963), (74.0318, 52.0014), (56.5252, 72.2366), (42.0493, 92.8655), (71.2299, 92.7041)),
)
"""Deng et al. (2019), half a pixel more than published: there (0, 0) is the centre of the first pixel, here its corner.

Its networks were trained on landmarks of several detectors put on these same points.
"""

TEMPLATES: dict[str, dict[str, Template]] = {
    "arcface-112": {ANY: ARCFACE_112},
    # Medians in the crops dlib's own aligner makes: MTCNN's of 243 LFW faces, YuNet's of 206.
    "dlib-150": {
        "mtcnn": Template(side=150, points=((46.6, 44.9), (100.4, 45.0), (74.0, 77.1), (49.5, 103.7), (97.0, 104.5))),
        "yunet": Template(side=150, points=((46.3, 45.5), (100.7, 45.2), (73.2, 75.5), (50.5, 102.2), (96.8, 101.9))),
    },
    "facenet-160": {},
}
"""By crop, then by family of detectors; `any` where one template serves them all."""


def template_for(family: str, crop: str) -> Template:
    """Return where the landmarks of a family of detectors belong in a crop.

    Raises:
        NotFoundError: Nobody has measured it.
    """
    known = TEMPLATES.get(crop, {})
    found = known.get(family) or known.get(ANY)
    if found is None:
        raise NotFoundError(
            f"Nobody has measured where the landmarks of {family} fall in crops '{crop}'; "
            f"known are {', '.join(sorted(known)) or 'none'}."
        )
    return found
