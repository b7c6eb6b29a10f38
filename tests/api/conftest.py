"""The whole service over HTTP, in this process: real PostgreSQL, real networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from tests.callers import CALLER
from tests.networks import load_pipeline

from vultus.api.app import create_app
from vultus.domain import Role
from vultus.models.pipeline import FacePipeline
from vultus.models.pipelines import PipelineRegistry
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import ThreadWorkerGroup
from vultus.services.wiring import Services, build_services
from vultus.settings import Settings
from vultus.utils.request_scope import RequestLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from vultus.db.database import Database

CONSENT = {"consent_purpose": "Tests", "consent_recorded_by": "tests@example.org"}


@dataclass(frozen=True)
class Api:
    """A client with an administrator's key, and the services it calls."""

    client: httpx.AsyncClient
    services: Services

    @property
    def pool(self) -> AnalysisPool:
        """The engine behind the photo analyzer."""
        return cast("AnalysisPool", self.services.photo_analyzer._engine)

    async def key(self, role: Role) -> dict[str, str]:
        """Return the headers of a new key."""
        _, secret = await self.services.access.create_key(CALLER, "test", role)
        return {"Authorization": f"Bearer {secret}"}

    async def register(
        self, *photos: bytes, status: int = 201, headers: dict[str, str] | None = None, **fields: Any
    ) -> Any:
        """Register photos, with consent unless the fields say otherwise, and return the response."""
        data = {key: value for key, value in {**CONSENT, **fields}.items() if value is not None}
        files = [("photo", (f"{at}.jpg", photo, "image/jpeg")) for at, photo in enumerate(photos)]
        answer = await self.client.post("/v1/register", data=data, files=files, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def recognize(self, photo: bytes, status: int = 200, **fields: Any) -> Any:
        """Recognise a photo and return the response."""
        answer = await self.client.post("/v1/recognize", data=fields, files={"photo": photo})
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture(scope="session")
def pipeline() -> FacePipeline:
    """The built-in networks, loaded once."""
    return load_pipeline()


@pytest.fixture
def others() -> tuple[FacePipeline, ...]:
    """Further packs that are loaded."""
    return ()


async def start_api(database: Database, pipelines: PipelineRegistry, data_dir: Path, **settings: Any) -> Api:
    """Return the API with settings of its own; `close_api` ends it."""
    server = {"metrics": "shared", **settings.pop("server", {})}
    chosen = Settings(**{"data_dir": data_dir, "server": server, **settings})
    pool = AnalysisPool(chosen.inference, ThreadWorkerGroup(pipelines, chosen.inference.workers))
    services = build_services(chosen, database, pool, pipelines.spaces)
    await services.collections.ensure_default_collection()
    limits = RequestLimits(max_requests=chosen.server.max_requests, max_bodies_bytes=chosen.server.max_bodies_bytes)
    app = create_app(services, limits=limits, settings=chosen.server)
    _, secret = await services.access.create_key(CALLER, "administrator", Role.ADMIN)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://vultus.test",
        headers={"Authorization": f"Bearer {secret}"},
        timeout=60,
    )
    return Api(client, services)


async def close_api(api: Api) -> None:
    """Close a client, and what analyses its photos."""
    await api.client.aclose()
    await api.pool.close()


@pytest.fixture
async def serve(
    database: Database,
    pipeline: FacePipeline,
    others: tuple[FacePipeline, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that serves the API with settings of its own."""
    monkeypatch.setattr("vultus.api.metrics.MAX_AGE_S", 0.0)  # what a test did must be in the metrics it reads
    started: list[Api] = []

    async def start(**settings: Any) -> Api:
        started.append(await start_api(database, PipelineRegistry(pipeline, *others), tmp_path, **settings))
        return started[-1]

    yield start
    for one in started:
        await close_api(one)


@pytest.fixture
async def live_api(serve: Callable[..., Any]) -> Api:
    """The API with settings that name a liveness network; tests load one of their own."""
    started: Api = await serve(inference={"liveness": "minifasnet"})
    return started


@pytest.fixture
async def api(serve: Callable[..., Any]) -> Api:
    """The API with default settings."""
    started: Api = await serve()
    return started
