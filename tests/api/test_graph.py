"""An HNSW graph is searched only after its loss was measured: enabled, refused, changed and disabled."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.conftest import Api
from tests.callers import CALLER
from tests.galleries import enrol, make_open, people

from vultus.db.repositories.collections import get_partition_name
from vultus.domain import Collection, SearchMode
from vultus.errors import ConflictError, InvalidInputError
from vultus.services.search.hnsw import GraphRequest, HnswBuilder

URL = "/v1/collections/default"
ACTOR = CALLER


@pytest.fixture(autouse=True)
async def open_collection(api: Api) -> None:
    """Of a sealed one there are no graphs."""
    await make_open(api.services.database)


async def enable_graph(api: Api, **request: Any) -> Collection:
    services = api.services
    job = HnswBuilder(services.database, services.spaces, services.collections)
    return await job.enable(CALLER, "default", GraphRequest(**request))


async def read(api: Api) -> Any:
    return (await api.client.get(URL)).json()


async def count_graphs(api: Api) -> int:
    collection, _, _ = await api.services.collections.get_collection_with_counts(CALLER, "default")
    async with api.services.database.transaction() as work:
        count = "SELECT count(*) FROM pg_indexes WHERE indexname = $1"
        driver: Any = (await (await work._session.connection()).get_raw_connection()).driver_connection
        return int(await driver.fetchval(count, f"{get_partition_name(collection.id)}_hnsw"))


async def test_a_graph_without_losses_is_searched_until_it_is_dropped(api: Api) -> None:
    vectors = people(150)
    vectors[120:, 1] = people(30, seed=99)[:, 0]  # these persons' two faces are not alike: no mates
    await enrol(api.services.database, vectors)
    before = await read(api)
    on = await enable_graph(api)
    shown = await read(api)
    refused = await api.client.patch(URL, json={"policy": {"storage": "sealed"}})
    probe = {"contract_id": on.space_id, "vector": vectors[3, 0].tolist()}
    found = (await api.client.post("/v1/search", json=probe)).json()
    off = await api.client.patch(URL, json={"search": "exact"})

    assert (before["search"], before["graph"]) == ("auto", None)
    assert (refused.status_code, "HNSW graph" in refused.json()["detail"]) == (409, True)
    assert on.search is SearchMode.HNSW
    assert (shown["search"], shown["graph"]["m"], shown["graph"]["ef_search"]) == ("hnsw", 16, 100)
    loss = shown["graph"]["loss"]
    assert (loss["of"], loss["lost"], loss["share"], loss["low"]) == ("mates", 0, 0, 0)
    assert 0 < loss["high"] < 0.1
    assert loss["probes"] == 120
    assert found["candidates"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert (off.json()["search"], off.json()["graph"], await count_graphs(api)) == ("exact", None, 0)
    records = [
        one for one in (await api.client.get("/v1/audit")).json()["items"] if one["action"] == "collection.changed"
    ]
    assert [one["detail"]["fields"] for one in records] == [["search"], ["search"]]
    assert records[0]["detail"]["lost"] == 0


async def test_a_graph_that_loses_mates_is_refused_and_dropped(api: Api) -> None:
    """Every person has a mate that an exact search finds; with so few neighbours many are not visited."""
    await enrol(api.services.database, people(150))
    poor = {"m": 2, "ef_construction": 4, "ef_search": 1}

    with pytest.raises(InvalidInputError, match=r"mates .* were lost: .* Nothing was changed") as refused:
        await enable_graph(api, **poor)
    assert refused.value.facts["lost"] > 10
    assert ((await read(api))["search"], await count_graphs(api)) == ("auto", 0)

    accepted = await enable_graph(api, **poor, accept_loss=1.0)
    assert accepted.graph is not None
    loss = accepted.graph.loss
    assert loss.lost == pytest.approx(refused.value.facts["lost"], rel=0.5)
    assert loss.low < loss.share < loss.high

    better = await enable_graph(api, m=2, ef_construction=4, ef_search=1000, accept_loss=loss.share)
    assert better.graph is not None
    assert better.graph.loss.lost < loss.lost
    with pytest.raises(InvalidInputError, match="Nothing was changed"):
        await enable_graph(api, **poor)
    with pytest.raises(ConflictError, match="Set search to auto first"):
        await enable_graph(api)
    assert ((await read(api))["graph"]["ef_search"], await count_graphs(api)) == (1000, 1)


async def test_where_nobody_has_a_mate_the_nearest_neighbours_count(api: Api) -> None:
    with pytest.raises(InvalidInputError, match="no two faces"):
        await enable_graph(api)
    await enrol(api.services.database, people(100, faces=1))

    on = await enable_graph(api, accept_loss=0.5)
    assert on.graph is not None
    assert (on.graph.loss.of, on.graph.loss.probes) == ("neighbours", 100)


async def test_what_does_not_fit_is_refused(api: Api) -> None:
    with pytest.raises(InvalidInputError, match="at least 2 m, 80"):
        await enable_graph(api, m=40)
    refused = await api.client.patch(URL, json={"search": "hnsw"})
    assert refused.status_code == 422
    assert "search" in refused.text
    collection, _, _ = await api.services.collections.get_collection_with_counts(CALLER, "default")
    async with api.services.database.open_hnsw_maintenance(collection.id):
        busy = await api.client.patch(URL, json={"search": "exact", "name": "other"})
    assert (busy.status_code, (await read(api))["name"]) == (409, "default")
    assert (await api.client.patch(URL, json={"search": None})).status_code == 422
    assert (await read(api))["search"] == "auto"
