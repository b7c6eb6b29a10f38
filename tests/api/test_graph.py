"""A graph is searched only after its loss was measured: turned on, refused, changed and turned off again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.conftest import Api
from tests.galleries import enrol, people

from vultus.db.repositories.collections import partition_of
from vultus.domain import Actor, Collection, SearchMode
from vultus.errors import ConflictError, InvalidInputError
from vultus.services.search.hnsw import GraphWanted, OwnGraph

URL = "/v1/collections/default"
ACTOR = Actor("test")


async def turn_on(api: Api, **wanted: Any) -> Collection:
    services = api.services
    job = OwnGraph(services.database, services.pipelines, services.collections)
    return await job.turn_on("default", GraphWanted(**wanted), actor=ACTOR)


async def read(api: Api) -> Any:
    return (await api.client.get(URL)).json()


async def graphs(api: Api) -> int:
    home, _, _ = await api.services.collections.get("default")
    async with api.services.database.work() as work:
        count = "SELECT count(*) FROM pg_indexes WHERE indexname = $1"
        driver: Any = (await (await work._session.connection()).get_raw_connection()).driver_connection
        return int(await driver.fetchval(count, f"{partition_of(home.id)}_hnsw"))


async def test_a_graph_that_keeps_everybody_is_searched_until_it_is_dropped(api: Api) -> None:
    vectors = people(150)
    vectors[120:, 1] = people(30, seed=99)[:, 0]  # these persons' two faces are not alike: no mates
    await enrol(api.services.database, vectors)
    before = await read(api)
    on = await turn_on(api)
    shown = await read(api)
    probe = {"contract_id": on.contract_id, "vector": vectors[3, 0].tolist()}
    found = (await api.client.post("/v1/search", json=probe)).json()
    off = await api.client.patch(URL, json={"search": "exact"})

    assert (before["search"], before["graph"]) == ("auto", None)
    assert on.search is SearchMode.HNSW
    assert (shown["search"], shown["graph"]["m"], shown["graph"]["ef_search"]) == ("hnsw", 16, 100)
    loss = shown["graph"]["loss"]
    assert (loss["of"], loss["lost"], loss["share"], loss["low"]) == ("mates", 0, 0, 0)
    assert 0 < loss["high"] < 0.1
    assert loss["probes"] == 120
    assert found["candidates"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert (off.json()["search"], off.json()["graph"], await graphs(api)) == ("exact", None, 0)
    records = [one for one in (await api.client.get("/v1/audit")).json()["items"] if "search" in str(one["detail"])]
    assert [one["detail"]["fields"] for one in records] == [["search"], ["search"]]
    assert records[0]["detail"]["lost"] == 0


async def test_a_graph_that_loses_mates_is_refused_and_gone(api: Api) -> None:
    """Every person has a mate that an exact search finds; with so few neighbours many are not met."""
    await enrol(api.services.database, people(300))
    poor = {"m": 2, "ef_construction": 4, "ef_search": 1}

    with pytest.raises(InvalidInputError, match=r"mates .* were lost: .* Nothing was changed") as refused:
        await turn_on(api, **poor)
    assert refused.value.facts["lost"] > 20
    assert ((await read(api))["search"], await graphs(api)) == ("auto", 0)

    accepted = await turn_on(api, **poor, accept_loss=1.0)
    assert accepted.graph is not None
    loss = accepted.graph.loss
    assert loss.lost == pytest.approx(refused.value.facts["lost"], rel=0.5)
    assert loss.low < loss.share < loss.high

    better = await turn_on(api, m=2, ef_construction=4, ef_search=1000, accept_loss=loss.share)
    assert better.graph is not None
    assert better.graph.loss.lost < loss.lost
    with pytest.raises(InvalidInputError, match="Nothing was changed"):
        await turn_on(api, **poor)
    with pytest.raises(ConflictError, match="Set search to auto first"):
        await turn_on(api)
    assert ((await read(api))["graph"]["ef_search"], await graphs(api)) == (1000, 1)


async def test_where_nobody_has_a_mate_the_nearest_neighbours_count(api: Api) -> None:
    with pytest.raises(InvalidInputError, match="no two faces"):
        await turn_on(api)
    await enrol(api.services.database, people(200, faces=1))

    on = await turn_on(api, accept_loss=0.5)
    assert on.graph is not None
    assert (on.graph.loss.of, on.graph.loss.probes) == ("neighbours", 200)


async def test_what_does_not_fit_is_refused(api: Api) -> None:
    with pytest.raises(InvalidInputError, match="at least 2 m, 80"):
        await turn_on(api, m=40)
    refused = await api.client.patch(URL, json={"search": "hnsw"})
    assert refused.status_code == 422
    assert "search" in refused.text
    home, _, _ = await api.services.collections.get("default")
    async with api.services.database.graph_work(home.id):
        busy = await api.client.patch(URL, json={"search": "exact", "name": "other"})
    assert (busy.status_code, (await read(api))["name"]) == (409, "default")
    assert (await api.client.patch(URL, json={"search": None})).json()["search"] == "auto"
