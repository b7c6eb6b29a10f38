"""The section of the configuration about backups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from vultus.settings.sections import Section
from vultus.utils.age_files import require_recipient
from vultus.utils.configuration import split_words

Recipient = Annotated[str, AfterValidator(require_recipient)]


class BackupSettings(Section):
    """Backups: who can open them, those that the server writes by itself, and how long they are kept."""

    recipients: tuple[Recipient, ...] = Field(
        (),
        description="Public keys of those who can open backups, separated by commas, as `vultus backup-identity` or "
        "`age-keygen` prints them.",
    )
    dir: Path | None = Field(
        None, description="Folder of the backups that the server writes by itself; unset: it writes none."
    )
    interval_hours: float = Field(24.0, ge=0.01, description="Time between two of them.")
    hour: int | None = Field(
        None, ge=0, le=23, description="Hour of the day, UTC, in which one is written daily, instead of an interval."
    )
    keep_days: float = Field(
        30.0,
        gt=0,
        description="They are deleted after so long; an erasure names the day by which no backup holds the person, if "
        "this or `dir` is set.",
    )

    @property
    def stated_keep_days(self) -> float | None:
        """How long backups are kept, whoever makes them; None where the operator has said nothing about backups."""
        return self.keep_days if self.dir is not None or "keep_days" in self.model_fields_set else None

    @field_validator("recipients", mode="before")
    @classmethod
    def parse_list(cls, value: object) -> object:
        """Split the comma-separated text of an environment variable."""
        return split_words(value)

    @model_validator(mode="after")
    def validate_recipients(self) -> Self:
        """Validate that backups written by the server are encrypted."""
        if self.dir is not None and not self.recipients:
            raise ValueError("backups.dir needs backups.recipients: 'vultus backup-identity FILE' makes a key pair")
        return self
