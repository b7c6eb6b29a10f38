"""What is known of a network: where its weights come from, what one may do with them, who made it, what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["detector", "embedder", "quality", "liveness"]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside an installed Python package.

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


@dataclass(frozen=True, slots=True)
class Archive:
    """A ZIP file that holds weights.

    Attributes:
        url: Of the archive.
        sha256: Of the archive, lower-case hexadecimal.
        member: File name of the weights in it, in whatever folder they are.
    """

    url: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """A file of the models folder, downloaded or imported.

    Attributes:
        filename: In the folder and on mirrors; no two networks share one.
        url: Where it is published; None where it comes in an archive, or where it can only be imported.
        sha256: Lower-case hexadecimal. None where no trusted source states it: the digest of the first file that is
            placed is then recorded, and holds from there on.
        size: Bytes, where known; a download that grows past it stops.
        archive: What it is unpacked from, when it is.
    """

    filename: str
    url: str | None = None
    sha256: str | None = None
    size: int | None = None
    archive: Archive | None = None


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file another program keeps, measured when it was loaded.

    Attributes:
        path: On this machine.
        sha256: Of the bytes that were loaded.
    """

    path: str
    sha256: str


WeightsFile = PackagedFile | DownloadedFile | ForeignFile


@dataclass(frozen=True, slots=True)
class Licence:
    """Terms of a network's weights, as their publisher states them.

    Attributes:
        name: Short; what is typed to accept it.
        commercial_use: False also where it is doubtful.
        terms: What it means, in one sentence.
        url: Where the publisher states it.
        must_be_accepted: Whether the weights are only fetched and loaded after somebody accepted the licence by name.
    """

    name: str
    commercial_use: bool
    terms: str
    url: str
    must_be_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """A pretrained network.

    Attributes:
        name: Unique.
        kind: What it is for.
        family: Which code runs it: a key of the tables in `vultus.models.loading`.
        files: By role; most networks have the one role `network`.
        licence: Of the weights.
        paper: Authors (year), "title".
        inputs: What it is fed with, in words.
        published: Percent or average precision by benchmark, as its publisher states them; of WIDER FACE the
            validation set.
        dimension: Length of an embedder's vectors.
        crop: Of an embedder: which crops it was trained on, a key of `templates.TEMPLATES`.
        steps: Of an embedder: how crops become vectors, in the words of its contract.
    """

    name: str
    kind: Kind
    family: str
    files: dict[str, WeightsFile]
    licence: Licence
    paper: str
    inputs: str
    published: dict[str, float] = field(default_factory=dict)
    dimension: int = 0
    crop: str = ""
    steps: str = ""

    @property
    def file(self) -> WeightsFile:
        """The weights of a network that has one file."""
        (only,) = self.files.values()
        return only
