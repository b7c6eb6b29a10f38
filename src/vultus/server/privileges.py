"""Leaving root before strangers' requests are parsed."""

from __future__ import annotations

import logging
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from vultus.db.embedded.account import OWN_NAMES, get_server_account
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from vultus.settings import Settings

log = logging.getLogger(__name__)


def leave_root(settings: Settings) -> None:
    """Become the user that runs PostgreSQL, if this process is root: what parses strangers' requests should not be.

    It stays root, with a warning, where that user could not read the program, a file of the settings, or enter the data
    directory.
    """
    if os.geteuid() != 0:
        return
    data_dir = settings.data_dir.absolute()
    try:
        account = get_server_account(data_dir / "postgres")
    except EmbeddedDatabaseError as error:
        log.warning("the service runs as root: %s", error.detail)
        return
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    programs = (Path(os.__file__).parent, Path(sysconfig.get_path("platlib")), Path(__file__).parents[1])
    ring = settings.key_ring
    secrets = (ring.file, ring.vault_token_file, ring.vault_secret_id_file, ring.vault_ca_file)
    files = (path for path in (settings.models.dir, *secrets) if path is not None)
    folders = (*programs, data_dir.parent, settings.custody.parent)
    paths = {path: account.find_blocked_directory(path) for path in folders}
    unusable: str | Path | None
    unusable = next((f"{path}, as it may not enter {blocked}" for path, blocked in paths.items() if blocked), None)
    unusable = unusable or account.find_unreadable((*programs, *files))
    names = {path.name for path in data_dir.iterdir()}
    if unusable is None and names and names.isdisjoint(OWN_NAMES):
        unusable = data_dir
    if unusable is not None:
        log.warning(
            "the service runs as root: the system user '%s' could not use %s. Install Python and Vultus where every "
            "user may read, and set VULTUS_DATA_DIR to a directory of its own.",
            account.name,
            unusable,
        )
        return
    account.take_over(data_dir)
    custody_dir = settings.custody
    custody_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    account.take_over_files(custody_dir, settings.custody_files)
    account.become()
    os.environ["HOME"] = str(data_dir)
    log.info("the service runs as the system user '%s'", account.name)
