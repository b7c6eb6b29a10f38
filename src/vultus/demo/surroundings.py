"""Where the demo runs: settings of its own, in a folder of its own, beside whatever is installed here."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from vultus.demo.neighbours import HOST
from vultus.errors import SetupError
from vultus.models.catalog.packs import BUILTIN, RECOMMENDED
from vultus.models.weights.store import FileState, WeightsStore
from vultus.server.serving import bind_socket
from vultus.settings import InferenceSettings, ModelSettings, ServerSettings, Settings, SourceSettings, WebhookSettings

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = f"{HOST}/32"


def build_settings(installed: Settings, folder: Path, port: int | None) -> Settings:
    """Return the settings of a server that touches nothing of the installation but its weights, which it reads.

    Args:
        installed: Of the installation; of them hold where weights lie, and what the networks run on.
        folder: The demo's data directory.
        port: To listen on; None for the installation's, or any other where that is taken.
    """
    store = WeightsStore(installed.models.dir or installed.data_dir / "models", usage=installed.models.usage)
    return Settings.model_construct(
        data_dir=folder,
        custody_dir=folder / "custody",
        server=ServerSettings(
            host=HOST, port=_find_port(installed.server.port) if port is None else port, metrics="off"
        ),
        inference=_choose_networks(installed.inference, store),
        models=ModelSettings(dir=store.models_dir, usage=installed.models.usage, offline=True),
        sources=SourceSettings(allowed=(LOOPBACK,)),
        webhooks=WebhookSettings.model_validate({"allowed_networks": LOOPBACK}),
    )


def write_settings_file(settings: Settings) -> None:
    """Write what a command needs to know that works beside the demo: `VULTUS_DATA_DIR` leads to it."""
    inference, models = settings.inference, settings.models
    lines = (
        f"custody_dir = {json.dumps(str(settings.custody_dir))}",
        "[inference]",
        f"pack = {json.dumps(inference.pack)}",
        "[models]",
        f"dir = {json.dumps(str(models.dir))}",
        f"usage = {json.dumps(models.usage)}",
        "offline = true",
    )
    (settings.data_dir / "vultus.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _choose_networks(installed: InferenceSettings, store: WeightsStore) -> InferenceSettings:
    """Return the installation's settings, with the recommended pack if its weights are here, else the built-in one."""
    if installed.pack is not None:
        return installed
    pack = BUILTIN
    files = (*RECOMMENDED.detector.files.values(), *RECOMMENDED.embedder.files.values())
    with suppress(OSError):  # a folder that is closed to this user
        if all(store.get_file_state(file) is FileState.PRESENT for file in files):
            pack = RECOMMENDED
    return installed.model_copy(update={"pack": pack.name})


def _find_port(usual: int) -> int:
    try:
        bind_socket(HOST, usual).close()
    except SetupError:
        return 0
    return usual
