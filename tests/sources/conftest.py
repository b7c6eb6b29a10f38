"""Feeds of sources, decoded in real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.videos import write_video
from vultus.domain import Pixels
from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.sources.pool import DecoderPool, SourceFeed, SourceOpening

OpenFeed = Callable[..., SourceFeed]


def paint(number: int, *, width: int = 320, height: int = 240) -> Pixels:
    """A picture whose grey says its number."""
    return np.full((height, width, 3), 20 + 4 * number, np.uint8)


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    opened = DecoderPool()
    yield opened
    await opened.close()


@pytest.fixture
def open_feed(pool: DecoderPool) -> OpenFeed:
    """Opens a source, by default what its address alone allows."""

    def open_one(text: str, *allowed: str, **options: Any) -> SourceFeed:
        address = SourceAddress.from_text(text)
        rules = AllowedSources(allowed) if allowed else AllowedSources.from_address(address)
        defaults = {"open_timeout_s": 5.0, "read_timeout_s": 2.0}
        return pool.open_feed(SourceOpening(address, rules, **defaults | options))

    return open_one


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds at 25 pictures a second."""
    return write_video(tmp_path / "video.mp4", [paint(number) for number in range(50)])
