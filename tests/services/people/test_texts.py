"""Texts and moments are under one rule whoever calls: the services refuse what the wire would."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.callers import CALLER
from tests.services.conftest import GRANT

from vultus.domain import Role
from vultus.errors import InvalidInputError
from vultus.services.access import AccessService
from vultus.services.enrolment.bulk import VectorBatch
from vultus.services.enrolment.registration import RegistrationRequest
from vultus.services.people.consents import ConsentGrant, ConsentService
from vultus.services.people.persons import PersonService

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection
    from vultus.services.collections import CollectionService

BAD = "A\x9b31mda"
GOOD: dict[str, Any] = {"purpose": "Tests", "recorded_by": "tests"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"purpose": ""},
        {"purpose": "x" * 501},
        {"recorded_by": "  "},
        {"evidence_ref": BAD},
        {"expires_at": datetime(9999, 12, 31, tzinfo=UTC)},
        {"granted_at": datetime(2026, 1, 1)},  # noqa: DTZ001
    ],
    ids=str,
)
def test_a_consent_that_cannot_be_kept_is_not_built(wrong: dict[str, Any]) -> None:
    (field,) = wrong

    with pytest.raises(InvalidInputError, match=f"consent's {field} must"):
        ConsentGrant(**{**GOOD, **wrong})


@pytest.mark.parametrize("wrong", [{"name": BAD}, {"external_id": "\u202eE-7"}, {"metadata": {"a": BAD}}], ids=str)
def test_a_registration_of_such_a_text_is_not_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="must not contain U"):
        RegistrationRequest("default", (), **wrong)


def test_a_batch_names_the_row_of_such_a_text() -> None:
    with pytest.raises(InvalidInputError, match="names, row 8, counted from 0: must not contain U") as refused:
        VectorBatch("default", "space", ["a", "b"], ["Ada", BAD], np.ones((2, 8)), GRANT, first_row=7)

    assert refused.value.facts == {"rows": [8]}


async def test_a_person_is_found_however_their_id_is_written(database: Database, collection: Collection) -> None:
    persons = PersonService(database)
    made, _ = await persons.create_person(
        CALLER, " home ", external_id=" Zoe\u0308 ", name="Ada\u00a0L.", metadata={" a": "e\u0301"}, consent=GRANT
    )

    (found,) = await persons.list_persons(CALLER, "home", after=None, limit=2, external_id="Zoë\u3000")

    assert found == made
    assert (made.external_id, made.name, made.metadata) == ("Zoë", "Ada L.", {"a": "é"})


async def test_no_change_brings_such_a_text_in(
    database: Database, collection: Collection, collections: CollectionService
) -> None:
    persons, consents = PersonService(database), ConsentService(database)
    made, consent = await persons.create_person(
        CALLER, "home", external_id="E-1", name=None, metadata={}, consent=GRANT
    )

    with pytest.raises(InvalidInputError):
        await persons.create_person(CALLER, "home", external_id=BAD, name=None, metadata={}, consent=GRANT)
    for patch in ({"name": BAD}, {"external_id": " "}, {"metadata": {BAD: 1}}):
        with pytest.raises(InvalidInputError):
            await persons.update_person(CALLER, "home", made.id, **patch)
    for change in ({"evidence_ref": BAD}, {"expires_at": datetime(9999, 1, 1, tzinfo=UTC)}):
        with pytest.raises(InvalidInputError):
            await consents.update_consent(CALLER, "home", made.id, consent.id, **change)
    for name in ("", "a b", BAD, "ü", "x" * 65):
        with pytest.raises(InvalidInputError):
            await collections.create_collection(CALLER, name)
        with pytest.raises(InvalidInputError):
            await collections.update_collection(CALLER, "home", name=name)
    with pytest.raises(InvalidInputError):
        await AccessService(database).create_key(CALLER, BAD, Role.ADMIN)

    assert await persons.list_persons(CALLER, "home", after=None, limit=9) == (made,)
