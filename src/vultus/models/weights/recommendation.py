"""The recommended pack: the default of an installation that has chosen none, fetched at its first start."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from vultus.errors import DownloadError, WeightsError
from vultus.models.catalog.entries import PublishedFile
from vultus.models.catalog.packs import BUILTIN, RECOMMENDED
from vultus.models.weights.download import Downloader
from vultus.models.weights.store import FileState

if TYPE_CHECKING:
    from collections.abc import Callable

    from vultus.models.weights.store import WeightsStore
    from vultus.settings import ModelSettings

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 5.0
"""Read timeout of this download: without an origin a start must not take long, and the next one tries again."""


def ensure_recommended_pack(
    store: WeightsStore,
    settings: ModelSettings,
    *,
    retry: bool,
    progress: Callable[[str, int, int | None], None] = lambda _name, _done, _all: None,
) -> None:
    """Make the recommended pack the default of an installation that has chosen none, and fetch its weights.

    The built-in pack stays loaded beside it, for collections that hold its vectors. Without any origin the built-in
    pack stays the default, and the log says so.

    Args:
        store: Of the installation.
        settings: Mirror, timeout, and whether anything may be fetched.
        retry: Whether to try again what failed before.
        progress: As in `Downloader`.
    """
    installation = store.installation
    if store.models_dir is None or installation.list_chosen_packs():
        return
    files = (*RECOMMENDED.detector.files.values(), *RECOMMENDED.embedder.files.values())
    published = [file for file in files if isinstance(file, PublishedFile)]
    missing = [file for file in published if store.get_file_state(file) is not FileState.PRESENT]
    if missing:
        if settings.offline or (installation.has_fetch_failed and not retry):
            return
        downloader = Downloader(
            store, mirror=settings.mirror, timeout_s=min(settings.timeout_s, READ_TIMEOUT_S), progress=progress
        )
        try:
            downloader.fetch_weights(*missing)
        except (DownloadError, WeightsError, OSError) as error:
            reason = getattr(error, "detail", error)
            log.warning("the recommended pack '%s' could not be fetched: %s", RECOMMENDED.name, reason)
            with suppress(OSError):
                installation.record_failed_fetch()
            return
    try:
        installation.set_default_pack(RECOMMENDED.name, BUILTIN.name)
    except OSError as error:
        log.warning(
            "the recommended pack '%s' is here, but cannot be made the default: %s cannot be written (%s). Set "
            "VULTUS_INFERENCE__PACK=%s and VULTUS_INFERENCE__EXTRA_PACKS=%s.",
            RECOMMENDED.name,
            store.models_dir,
            error.strerror,
            RECOMMENDED.name,
            BUILTIN.name,
        )
        return
    log.info("new collections use the recommended pack '%s'", RECOMMENDED.name)
