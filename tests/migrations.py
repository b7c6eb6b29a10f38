"""Helpers for tests of migrations, backfill and crops over HTTP, on a server with a second pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.packs import zoomed
from vultus.models.pipeline import FacePipeline

if TYPE_CHECKING:
    from tests.api.conftest import Api
    from vultus.domain import Analysis, Calibration

COLLECTION = "/v1/collections/default"
MIGRATION = f"{COLLECTION}/transition"


@pytest.fixture(scope="session")
def second(pipeline: FacePipeline) -> FacePipeline:
    return zoomed(pipeline)


@pytest.fixture
def others(second: FacePipeline) -> tuple[FacePipeline, ...]:
    return (second,)


async def call_api(api: Api, method: str, path: str = MIGRATION, status: int = 200, **options: Any) -> Any:
    answer = await api.client.request(method, path, **options)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def set_keep_crops(api: Api, *, enabled: bool = True, status: int = 200) -> Any:
    return await call_api(api, "PATCH", COLLECTION, status, json={"policy": {"keep_crops": enabled}})


async def start_migration(api: Api, **fields: Any) -> Any:
    return await call_api(api, "POST", json={"pack": "zoomed", **fields})


async def resubmit_photos(api: Api, *photos: bytes) -> list[str]:
    files = [("photo", (f"{at}.jpg", photo)) for at, photo in enumerate(photos)]
    return [one["outcome"] for one in (await call_api(api, "POST", f"{MIGRATION}/photos", files=files))["photos"]]


async def recognize_best(api: Api, photo: bytes) -> tuple[str, str, str | None]:
    found = await api.recognize(photo)
    (face,) = found["faces"]
    return found["contract_id"], face["verdict"], face["person"]["name"] if face["person"] else None


def run_after_analysis(
    api: Api, monkeypatch: pytest.MonkeyPatch, pipeline: FacePipeline, act: Callable[[], Any]
) -> None:
    """Run an action once, after a pipeline analyzed the next photo and before the caller gets the result."""
    pool = api.services.backfill_worker._engine
    analyze = pool.analyze_photo
    done: list[bool] = []

    async def analyze_then_act(photo: bytes, space_id: str, *arguments: Any, **options: Any) -> Analysis:
        analysis = await analyze(photo, space_id, *arguments, **options)
        if space_id == pipeline.space.id and not done:
            done.append(True)
            await act()
        return analysis

    monkeypatch.setattr(pool, "analyze_photo", analyze_then_act)


def set_calibration(
    api: Api, monkeypatch: pytest.MonkeyPatch, pipeline: FacePipeline, calibration: Calibration
) -> None:
    """Replace the pack's calibration of a pipeline's embedding space."""
    space = replace(api.services.spaces.get_space(pipeline.space.id), calibration=calibration)
    monkeypatch.setitem(api.services.spaces._by_id, space.id, space)


async def fetch_scalar(api: Api, sql: str) -> Any:
    async with api.services.database._engine.connect() as connection:
        return (await connection.exec_driver_sql(sql)).scalar_one()


async def fetch_ids(api: Api, sql: str) -> list[UUID]:
    async with api.services.database._engine.connect() as connection:
        return list((await connection.exec_driver_sql(sql)).scalars())
