"""Events of bundles: a collection that leaves, and one that arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from vultus.domain.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionExported(Event):
    """A collection was written to a bundle, with the templates of everybody in it."""

    action: ClassVar[str] = "collection.exported"
    collection_id: UUID
    persons: int
    faces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleImported(Event):
    """Persons of a bundle were added to a collection.

    Attributes:
        installation: Id of the installation that signed it.
    """

    action: ClassVar[str] = "collection.imported"
    collection_id: UUID
    persons: int
    consents: int
    faces: int
    installation: UUID

    @property
    def detail(self) -> dict[str, Any]:
        """The counts, and the id of the installation as text."""
        counts = {"persons": self.persons, "consents": self.consents, "faces": self.faces}
        return {**counts, "installation": str(self.installation)}
