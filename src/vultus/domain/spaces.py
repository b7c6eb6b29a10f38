"""Embedding spaces whose networks are loaded: everything that services know of the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.domain.policies import Calibration, EmbeddingSpace, QualityRule
from vultus.errors import NotFoundError, PackNotLoadedError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class NetworkOrigin:
    """A network's name, the name of its licence, and its paper."""

    name: str
    licence: str
    paper: str


@dataclass(frozen=True, slots=True)
class LoadedSpace(EmbeddingSpace):
    """An embedding space whose networks are loaded, here or in another process.

    Attributes:
        calibration: Its measured thresholds.
        enrol_rule: Quality that new collections require for enrolment.
        recognize_rule: Quality that new collections require of a probe.
        earlier_rules: Rules of enrolment and of recognition that new collections required before.
        pack: Name of the pack.
        detector: The pack's detector.
        embedder: The pack's embedder.
        is_commercial_use_allowed: Whether both licences clearly allow it.
        caution: What whoever relies on its verdicts must know; None if nothing.
        runtime: What runs the detector and the embedder, and in which precision, by their kind.
    """

    calibration: Calibration
    enrol_rule: QualityRule
    recognize_rule: QualityRule
    pack: str
    detector: NetworkOrigin
    embedder: NetworkOrigin
    is_commercial_use_allowed: bool
    runtime: dict[str, str]
    caution: str | None = None
    earlier_rules: tuple[QualityRule, ...] = ()


class SpaceRegistry:
    """Loaded embedding spaces by id.

    Args:
        default: Used by new collections that request no other.
        others: Used by the collections that hold vectors of them.
    """

    def __init__(self, default: LoadedSpace, *others: LoadedSpace) -> None:
        self._default_id = default.id
        self._by_id = {space.id: space for space in (default, *others)}

    def __iter__(self) -> Iterator[LoadedSpace]:
        """Iterate over the spaces, the default first."""
        return iter(self._by_id.values())

    @property
    def default(self) -> LoadedSpace:
        """The space that new collections use."""
        return self._by_id[self._default_id]

    def get_space(self, space_id: str) -> LoadedSpace:
        """Return a space by its id.

        Raises:
            PackNotLoadedError: No loaded pack computes vectors in it.
        """
        found = self._by_id.get(space_id)
        if found is None:
            raise PackNotLoadedError(
                f"The collection holds vectors of contract '{space_id}', which {self.describe_remedy('COLLECTION')}",
                contract_id=space_id,
            )
        return found

    def find_space(self, space_id: str) -> LoadedSpace | None:
        """Return a space by its id; None if no loaded pack computes vectors in it."""
        return self._by_id.get(space_id)

    def describe_unserved(self, space_id: str, names: tuple[str, ...]) -> str:
        """Return a sentence about collections whose vectors no loaded pack makes.

        Args:
            space_id: Of their embedding space.
            names: Of the collections.
        """
        quoted = ", ".join(f"'{name}'" for name in names)
        return (
            f"Nobody is recognised in {quoted}: they hold vectors of contract '{space_id}', which "
            f"{self.describe_remedy(names[0])}"
        )

    def describe_remedy(self, collection: str) -> str:
        """Return what to do about a collection whose vectors no loaded pack makes, as the end of a sentence.

        Args:
            collection: Its name.
        """
        return (
            f"none of the loaded packs makes ({', '.join(space.pack for space in self)}). If its pack is installed, "
            "name it in VULTUS_INFERENCE__EXTRA_PACKS and start again; if an update replaced it, migrate: vultus "
            f"transition begin {self.default.pack} -c {collection}, then vultus transition supply for persons without "
            "crops."
        )

    def get_space_of_pack(self, pack: str) -> LoadedSpace:
        """Return the space in which a pack computes vectors.

        Raises:
            NotFoundError: The pack is not loaded.
        """
        for space in self:
            if space.pack == pack:
                return space
        raise NotFoundError(
            f"Pack '{pack}' is not loaded; loaded are {', '.join(space.pack for space in self)}. Name it in "
            "VULTUS_INFERENCE__EXTRA_PACKS and start again."
        )
