"""Receipts of erasures: what was destroyed, how far it is gone and what remains, signed by the installation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vultus.domain import Permission
from vultus.domain.erasures import ErasureState
from vultus.sealing.signatures import encode_public_key, sign_document
from vultus.services.people.erasures import ErasureService
from vultus.utils.chained_file import ChainedFile
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.domain.erasures import Erasure
    from vultus.sealing.key_store import InstallationKeys, KeyStore
    from vultus.utils.chained_file import ChainPosition

RECEIPT = "receipt"
RECEIPT_FORMAT = 1

FILES = "files of the database, until they are scrubbed"
NOT_SEALED = "what is stored open, such as a name: in files of the database, until they are scrubbed"
BACKUPS = "backups from before"


class ReceiptService:
    """Issues receipts for those who may erase.

    Args:
        database: Whose erasures.
        keys: The installation's, one of which signs.
        ledger_file: The ledger of erasures, whose end the receipt names.
    """

    def __init__(self, database: Database, keys: KeyStore, ledger_file: Path) -> None:
        self._database = database
        self._keys = keys
        self._ledger = ChainedFile(ledger_file)

    async def issue_receipt(self, principal: Principal, erasure_id: UUID) -> bytes:
        """Return the receipt of an erasure as of now, a signed document.

        Raises:
            NotFoundError: There is no such erasure, or it does not exist for the principal.
            KeyRingError: The installation's keys cannot be used.
        """
        erasure = await ErasureService(self._database).get_erasure(principal, erasure_id)
        position = await asyncio.to_thread(self._ledger.find_end)
        keys = await self._load_keys()
        return sign_document(
            RECEIPT,
            _describe_erasure(erasure, position),
            installation_id=keys.installation_id,
            signing_key=keys.signing_key,
        )

    async def get_public_key(self, principal: Principal) -> str:
        """Return the key that verifies this installation's receipts, as text.

        Raises:
            KeyRingError: The installation's keys cannot be used.
        """
        principal.require(Permission.ERASE)
        return encode_public_key((await self._load_keys()).signing_key.public_key())

    async def _load_keys(self) -> InstallationKeys:
        return await asyncio.to_thread(self._keys.load)


def _describe_erasure(erasure: Erasure, ledger: ChainPosition) -> dict[str, Any]:
    report = erasure.report if erasure.state is ErasureState.SCRUBBED and erasure.report else {}
    before_scrub = [NOT_SEALED if erasure.unreadable_at else FILES, BACKUPS]
    return {
        "format": RECEIPT_FORMAT,
        "issued_at": format_moment(datetime.now(UTC)),
        "erasure": str(erasure.id),
        "action": erasure.action,
        "erased_at": format_moment(erasure.erased_at),
        "actor": erasure.actor,
        "collection": str(erasure.collection_id),
        "person": None if erasure.person_id is None else str(erasure.person_id),
        "object": None if erasure.object_id is None else str(erasure.object_id),
        "destroyed": {name: getattr(erasure, name) for name in ("persons", "faces", "consents", "crops")},
        "state": erasure.state.value,
        "unreadable_at": _format_optional(erasure.unreadable_at),
        "scrubbed_at": _format_optional(erasure.scrubbed_at),
        "unproven": report.get("unproven", []),
        "remaining": report.get("remaining", before_scrub),
        "backups_expire_at": _format_optional(erasure.backups_expire_at),
        "ledger": {"bytes": ledger.offset, "digest": ledger.digest},
    }


def _format_optional(moment: datetime | None) -> str | None:
    return None if moment is None else format_moment(moment)
