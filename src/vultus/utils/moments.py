"""Moments as text."""

from __future__ import annotations

from datetime import UTC, datetime


def format_moment(moment: datetime, timespec: str = "auto") -> str:
    """Return a moment as the API writes it, in UTC with `Z`: `2030-01-01T00:00:00Z`.

    Args:
        moment: With a time zone.
        timespec: As in `datetime.isoformat`; `milliseconds` for times of frames.
    """
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
