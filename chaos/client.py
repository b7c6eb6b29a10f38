"""A client of the API that enrols, changes, erases and searches persons by vectors and photos."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Self

import httpx
import numpy as np

if TYPE_CHECKING:
    from types import TracebackType

    from vultus.domain import FloatArray

TIMEOUT_S = 60.0
CONSENT = {"purpose": "Chaos", "recorded_by": "chaos@example.org"}
CONSENT_FIELDS = {"consent_purpose": "Chaos", "consent_recorded_by": "chaos@example.org"}


class Client:
    """Requests to a server on 127.0.0.1 with a key.

    Args:
        port: Of the server.
        key: Sent with every request.

    Attributes:
        http: Sends requests.
        space: Id and dimension of the embedding space, once they are known.
    """

    def __init__(self, port: int, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=TIMEOUT_S)
        self.space: tuple[str, int] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def fetch_space(self) -> tuple[str, int]:
        """Return id and dimension of the embedding space of the default collection."""
        if self.space is None:
            found = (await self.http.get("/v1/collections/default")).raise_for_status().json()["contract_id"]
            models = (await self.http.get("/v1/models")).raise_for_status().json()["items"]
            self.space = found, next(model["dimension"] for model in models if model["contract_id"] == found)
        return self.space

    async def enrol_vectors(
        self, persons: dict[str, FloatArray], collection: str = "default", idempotency_key: str | None = None
    ) -> httpx.Response:
        """Register persons by external id with a vector each."""
        space, _ = await self.fetch_space()
        rows = [
            {"external_id": name, "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode()}
            for name, vector in persons.items()
        ]
        return await self.http.post(
            f"/v1/collections/{collection}/vectors",
            json={"contract_id": space, "consent": CONSENT, "persons": rows},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )

    async def search_vector(self, vector: FloatArray, collection: str = "default", limit: int = 5) -> httpx.Response:
        """Search a collection by vector."""
        space, _ = await self.fetch_space()
        body = {"collection": collection, "contract_id": space, "vector": vector.tolist(), "limit": limit}
        return await self.http.post("/v1/search", json=body)

    async def register_photo(
        self, photo: bytes, *, idempotency_key: str | None = None, **fields: str
    ) -> httpx.Response:
        """Register a person with a photo, whoever else looks alike."""
        return await self.http.post(
            "/v1/register",
            data={**CONSENT_FIELDS, "allow_lookalike": "true", **fields},
            files={"photo": ("photo.jpg", photo, "image/jpeg")},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )

    async def recognize_photo(self, photo: bytes, **fields: str) -> httpx.Response:
        """Recognise the faces of a photo."""
        return await self.http.post("/v1/recognize", data=fields, files={"photo": ("photo.jpg", photo, "image/jpeg")})

    async def list_persons(self, collection: str = "default") -> list[dict[str, Any]]:
        """Return every person of a collection."""
        return await self.list_items(f"/v1/collections/{collection}/persons")

    async def list_items(self, path: str) -> list[dict[str, Any]]:
        """Return the items of every page of a list."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await self.http.get(path, params={"limit": "500", **cursor})).raise_for_status().json()
            found += page["items"]
            if not page["next_cursor"]:
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def create_key(self, **fields: Any) -> tuple[str, str]:
        """Create a key and return its id and its secret."""
        made = (await self.http.post("/v1/keys", json={"name": "chaos", **fields})).raise_for_status().json()
        return made["id"], made["secret"]


def draw_vectors(count: int, dimension: int, seed: int) -> FloatArray:
    """Return (count, dimension) float32 vectors of length 1, uniformly distributed in direction: all strangers."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def list_candidates(answer: httpx.Response) -> list[str]:
    """Return the external ids of the candidates of a search by vector."""
    return [one["external_id"] for one in answer.raise_for_status().json()["candidates"]]
