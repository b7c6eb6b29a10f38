"""What the composition root opens, it closes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.networks import share_networks

from vultus.main import open_services
from vultus.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


async def test_no_thread_of_the_search_outlives_the_services(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_networks(monkeypatch)
    before = set(threading.enumerate())
    settings = Settings(data_dir=tmp_path, database={"url": database_url}, inference={"workers": 1})

    async with open_services(settings) as services:
        await services.candidate_engine._run_in_thread(int)
        started = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("search")}
        assert len(started) == 1

    assert not started & set(threading.enumerate())
