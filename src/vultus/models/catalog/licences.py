"""The licences of the weights, as their publishers state them; not legal advice."""

from __future__ import annotations

from vultus.models.catalog.entries import Licence

MIT = Licence("MIT", commercial_use=True, terms="Any use, with the copyright notice.")
BSD = Licence("BSD-3-Clause", commercial_use=True, terms="Any use, with the copyright notice.")
APACHE = Licence("Apache-2.0", commercial_use=True, terms="Any use, with the licence and notices.")
CC0 = Licence("CC0-1.0", commercial_use=True, terms="Public domain.")
CC_BY = Licence("CC-BY-4.0", commercial_use=True, terms="Any use, with attribution.")

INSIGHTFACE = Licence(
    "InsightFace-non-commercial",
    commercial_use=False,
    terms="Non-commercial research only; commercial use needs a licence from InsightFace.",
    must_be_accepted=True,
)
VGGFACE2 = Licence(
    "MIT-VGGFace2",
    commercial_use=False,
    terms="The weights are MIT, the photos they were trained on (VGGFace2) were given for research.",
    must_be_accepted=True,
)
WEBFACE = Licence(
    "MIT-WebFace",
    commercial_use=False,
    terms="The code is MIT; the weights were trained on WebFace, which was given for non-commercial research.",
    must_be_accepted=True,
)
DEEPFACE = Licence(
    "DeepFace-model-terms",
    commercial_use=False,
    terms="DeepFace is MIT; each of its models keeps the terms of its own publisher, which you must look up.",
    must_be_accepted=True,
)
