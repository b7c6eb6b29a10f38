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
                f"The collection holds vectors of contract '{space_id}', which none of the loaded packs makes "
                f"({', '.join(space.pack for space in self)}). If its pack was chosen after the server was started, "
                "start that again; else name it in VULTUS_INFERENCE__EXTRA_PACKS.",
                contract_id=space_id,
            )
        return found

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
