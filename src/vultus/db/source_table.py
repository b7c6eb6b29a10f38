"""The table of sources, in a module of its own: `tables.py` is long enough."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, ForeignKey, false, func, true
from sqlalchemy.orm import Mapped, mapped_column

from vultus.db.tables import Base
from vultus.utils.ids import new_id


class SourceRow(Base):
    """A camera or video, which server watches it until when, and how it is doing."""

    __tablename__ = "sources"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    collection_id: Mapped[UUID] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    key_id: Mapped[UUID | None] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    label: Mapped[str]
    sealed_address: Mapped[bytes]
    min_face_px: Mapped[float | None] = mapped_column(Double)
    zones: Mapped[list[Any]] = mapped_column(JSON)
    fps: Mapped[float | None] = mapped_column(Double)
    idle_fps: Mapped[float | None] = mapped_column(Double)
    enabled: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    watcher: Mapped[UUID | None]
    watched_until: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(server_default="connecting")
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    problem: Mapped[str | None]
    is_loss_told: Mapped[bool] = mapped_column(server_default=false())
    last_frame_at: Mapped[datetime | None]
    measured_fps: Mapped[float] = mapped_column(Double, server_default="0")
    dropped: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (
        CheckConstraint("state IN ('connecting', 'running', 'lost', 'stopped')", name="state"),
        CheckConstraint("(watcher IS NULL) = (watched_until IS NULL)", name="watcher"),
    )
