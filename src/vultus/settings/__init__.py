"""Configuration: frozen sections, the unit in the name, impossible combinations rejected at start.

Every field is an environment variable: `VULTUS_` + section + `__` + field, for example `VULTUS_SERVER__PORT`. One that
is empty counts as unset: that is how an unset variable arrives from Compose files and unit files. What the environment
does not set, one TOML file may.
"""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IRGRP, S_IROTH
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from vultus.errors import SetupError
from vultus.settings.backup_section import BackupSettings
from vultus.settings.database_section import DatabaseSettings
from vultus.settings.key_ring import KeyRingSettings
from vultus.settings.sections import (
    Device,
    EventSettings,
    IndexSettings,
    InferenceSettings,
    JobSettings,
    LimitSettings,
    LiveSettings,
    LogSettings,
    ModelSettings,
    PhotoSettings,
    Precision,
    ServerSettings,
    SourceSettings,
    WebhookSettings,
)
from vultus.utils.configuration import (
    FILE_VARIABLE,
    describe_mistake,
    normalise_values,
    read_configuration_file,
    read_environment,
    require_intended,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from pydantic_settings import PydanticBaseSettingsSource

__all__ = [
    "BackupSettings",
    "DatabaseSettings",
    "Device",
    "EventSettings",
    "IndexSettings",
    "InferenceSettings",
    "JobSettings",
    "KeyRingSettings",
    "LimitSettings",
    "LiveSettings",
    "LogSettings",
    "ModelSettings",
    "PhotoSettings",
    "Precision",
    "ServerSettings",
    "Settings",
    "SourceSettings",
    "WebhookSettings",
    "describe_mistakes",
    "find_configuration_file",
    "get_default_data_dir",
]


def get_default_data_dir() -> Path:
    """Return the user's data directory; root's is in /var/lib, which the user that runs PostgreSQL can reach."""
    is_root = os.name == "posix" and os.geteuid() == 0
    return Path("/var/lib/vultus") if is_root else user_data_path("vultus")


class Settings(BaseSettings):
    """Complete configuration."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        default_factory=get_default_data_dir,
        description="Embedded database, weights, keys and lock files; created with mode 0700.",
    )
    custody_dir: Path | None = Field(
        None,
        description="What is kept apart from the database and its backups: the ledger of erasures, and notes of the "
        "audit record's chain. By default beside the data directory, named after it with `-custody`.",
    )
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    photos: PhotoSettings = PhotoSettings()
    inference: InferenceSettings = InferenceSettings()
    models: ModelSettings = ModelSettings()
    index: IndexSettings = IndexSettings()
    jobs: JobSettings = JobSettings()
    key_ring: KeyRingSettings = KeyRingSettings()
    backups: BackupSettings = BackupSettings()
    limits: LimitSettings = LimitSettings()
    events: EventSettings = EventSettings()
    webhooks: WebhookSettings = WebhookSettings()
    live: LiveSettings = LiveSettings()
    sources: SourceSettings = SourceSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="before")
    @classmethod
    def normalise_values(cls, values: Any) -> Any:
        """Expand `~` in paths."""
        return normalise_values(cls, values)

    @field_validator("data_dir", "custody_dir", mode="before")
    @classmethod
    def validate_intended(cls, value: object) -> object:
        """Refuse an empty path, which would be the current folder."""
        return require_intended(cls.model_fields["data_dir"], value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return options first, then the environment, then the configuration file.

        Raises:
            SetupError: The file cannot be read.
        """
        del env_settings, dotenv_settings, file_secret_settings
        environment = read_environment(cls, os.environ)
        given = init_settings().get("data_dir") or environment.get("data_dir")
        file = find_configuration_file(Path(given) if isinstance(given, (str, Path)) else None)
        return (
            init_settings,
            InitSettingsSource(settings_cls, environment),
            InitSettingsSource(settings_cls, _read_file(file) if file else {}),
        )

    @property
    def key_ring_file(self) -> Path:
        """File of the key ring."""
        return self.key_ring.file or self.custody / "key-ring.json"

    @property
    def ledger_file(self) -> Path:
        """File with what ended for good, for databases restored from a backup."""
        return self.custody / "erasures.jsonl"

    @property
    def audit_notes_file(self) -> Path:
        """File with the ends that the audit record's chain has had."""
        return self.custody / "audit.jsonl"

    @property
    def custody_files(self) -> tuple[Path, ...]:
        """The files that the custody folder holds, or may hold."""
        keys = [self.custody / name for name in ("keys.json", "persons.keys")]
        locks = [path.with_name(f"{path.name}.lock") for path in keys]
        rotation = (self.custody / name for name in ("rotation.lock", "rekeying.json"))
        return (self.ledger_file, self.audit_notes_file, self.key_ring_file, *keys, *locks, *rotation)

    @property
    def custody(self) -> Path:
        """Folder of what is kept apart from the database."""
        data_dir = self.data_dir.resolve()
        return self.custody_dir or data_dir.parent / f"{data_dir.name}-custody"

    @property
    def cautions(self) -> tuple[str, ...]:
        """What is allowed and unwise, in sentences for the log."""
        file = find_configuration_file(self.data_dir)
        if file is None or not file.stat().st_mode & (S_IRGRP | S_IROTH):
            return ()
        url = _read_file(file).get("database", {}).get("url", "")
        if not urlsplit(url).password:
            return ()
        return (f"{file} holds the database's password and can be read by others: chmod 600 '{file}'",)


def find_configuration_file(data_dir: Path | None = None) -> Path | None:
    """Return the configuration file: of `VULTUS_CONFIG`, else `vultus.toml` in the data directory, else None.

    Args:
        data_dir: Of the options or the environment; None for the default.
    """
    if named := os.environ.get(FILE_VARIABLE, "").strip():
        return Path(named).expanduser()
    file = (data_dir or get_default_data_dir()).expanduser() / "vultus.toml"
    return file if os.path.exists(file) else None  # noqa: PTH110  Path.exists raises where a directory is closed


def _read_file(file: Path) -> dict[str, Any]:
    found = read_configuration_file(file)
    if "data_dir" in found and not os.environ.get(FILE_VARIABLE, "").strip():
        raise SetupError(
            f"{file} was found in the data directory and cannot name another one (data_dir). Set VULTUS_DATA_DIR, or "
            "VULTUS_CONFIG to the path of this file."
        )
    return found


def describe_mistakes(error: ValidationError, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the name of each wrong setting as its user wrote it, and what is wrong with it, without its value.

    Args:
        error: Of `Settings`.
        options: Settings by section that the command line set.
    """
    environment = read_environment(Settings, os.environ)
    given = options.get("data_dir") or environment.get("data_dir")
    file = find_configuration_file(Path(given) if given else None)
    return [
        describe_mistake(mistake, Settings, environ=os.environ, options=options, file=str(file or ""))
        for mistake in error.errors()
        if mistake["type"] != "default_factory_not_called"  # follows from another mistake
    ]
