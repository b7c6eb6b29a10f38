"""What the catalogue says about a network: files, licence, origin, input and published accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """Weights inside an installed Python package.

    Attributes:
        package: Distribution name.
        version: The one whose file has the digest.
        path: Relative to the folder the package is installed in.
        sha256: Lower-case hexadecimal.
    """

    package: str
    version: str
    path: str
    sha256: str

    @property
    def filename(self) -> str:
        """Its name, for people."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file that holds weights.

    Attributes:
        url: Where it is published.
        sha256: Of the archive, lower-case hexadecimal.
        member: The path of the weights inside it; its last part is enough.
    """

    url: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """Weights that are downloaded, or imported from a file.

    Attributes:
        filename: In the models folder; unique in the catalogue.
        sha256: Lower-case hexadecimal; None where nobody published it: the first file is then pinned.
        url: Where it is published; None where it must be imported.
        archive: The archive it is published in, instead of by itself.
    """

    filename: str
    sha256: str | None
    url: str | None = None
    archive: Archive | None = None


File = PackagedFile | PublishedFile


class Kind(StrEnum):
    """What a network is for."""

    DETECTOR = "detector"
    EMBEDDER = "embedder"
    QUALITY = "quality"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of a network's weights, as their publisher states them.

    Attributes:
        name: By which it is accepted.
        commercial_use: Whether the terms allow it without doubt.
        terms: One sentence.
        must_be_accepted: Whether the weights are only used after somebody accepted the licence by name.
    """

    name: str
    commercial_use: bool
    terms: str
    must_be_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """A pretrained network.

    Attributes:
        name: Unique in the catalogue.
        kind: What it is for.
        family: Which code runs it.
        files: Its weights by role.
        licence: Of the weights.
        paper: Authors, year and title.
        inputs: What it is fed with, in words.
        published: Accuracy its publisher states, percent, by benchmark.
        dimension: Length of a vector; 0 for what makes none.
    """

    name: str
    kind: Kind
    family: str
    files: dict[str, File]
    licence: Licence
    paper: str
    inputs: str
    published: dict[str, float] = field(default_factory=dict)
    dimension: int = 0
