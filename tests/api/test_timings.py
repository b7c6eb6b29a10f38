"""Timings of a response and metrics of the server; neither identifies a person."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.faces import portrait

from vultus.models.pipeline import FacePipeline

if TYPE_CHECKING:
    from tests.api.conftest import Api

TIMING = re.compile(r"([a-z]+);dur=(\d+\.\d)")


def timings(header: str) -> dict[str, float]:
    """Parse a complete Server-Timing header."""
    found = dict(TIMING.findall(header))
    assert header == ", ".join(f"{name};dur={ms}" for name, ms in found.items())
    return {name: float(ms) for name, ms in found.items()}


async def test_a_response_reports_how_long_its_stages_took(api: Api) -> None:
    await api.register(portrait(), name="Ada")

    answer = await api.client.post("/v1/recognize", files={"photo": portrait(angle=5)})

    taken = timings(answer.headers["server-timing"])
    assert list(taken) == ["queue", "decode", "detect", "align", "embed", "search", "total"]
    assert all(taken[stage] > 0 for stage in ("decode", "detect", "align", "embed", "search"))
    assert sum(taken.values()) - taken["total"] <= taken["total"] + 1


@pytest.mark.parametrize(
    ("path", "files", "stages"),
    [
        ("/v1/detect", ["photo"], {"queue", "decode", "detect", "align", "total"}),
        ("/v1/compare", ["first", "second"], {"queue", "decode", "detect", "align", "embed", "total"}),
    ],
)
async def test_only_stages_that_ran_are_reported(api: Api, path: str, files: list[str], stages: set[str]) -> None:
    answer = await api.client.post(path, files={name: portrait() for name in files})

    assert set(timings(answer.headers["server-timing"])) == stages


async def test_responses_without_a_photo_have_no_timings(api: Api) -> None:
    assert "server-timing" not in (await api.client.get("/v1/version")).headers


async def measured(api: Api) -> dict[str, float]:
    """Return every sample of the metrics by its name and labels."""
    answer = await api.client.get("/metrics", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_metrics_count_requests_stages_and_batches_and_name_nobody(api: Api) -> None:
    before = await measured(api)
    person = (await api.register(portrait(), name="Ada Lovelace", external_id="ada-1815"))["person"]["id"]
    await api.recognize(portrait(angle=5))
    await api.client.get(f"/v1/collections/default/persons/{person}")
    await api.client.request("BREW", "/v1/recognize")
    after = await measured(api)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    recognized = 'method="POST",route="/v1/recognize"'
    assert grown(f'vultus_requests_total{{{recognized},status="200"}}') == 1
    assert grown(f"vultus_request_seconds_count{{{recognized}}}") == 1
    assert grown('vultus_stage_seconds_count{stage="embed"}') == 2
    assert grown('vultus_stage_seconds_count{stage="search"}') == 2  # lookalikes at registration are searched too
    assert grown("vultus_batch_photos_count") == 2
    assert (after["vultus_photos_waiting"], after["vultus_workers_busy"]) == (0, 0)
    text = (await api.client.get("/metrics")).text
    assert not re.search(rf"{person}|Ada|ada-1815|BREW", text)


async def test_a_change_of_a_collection_costs_the_next_photo_a_second_search_and_no_other(api: Api) -> None:
    """The cached collection is compared with the one its search sees, then cached again."""
    await api.register(portrait(), name="Ada")
    await api.recognize(portrait())
    await api.client.patch("/v1/collections/default", json={"policy": {"threshold": 0.96}})
    before = await measured(api)
    for _ in range(3):
        await api.recognize(portrait())
    after = await measured(api)

    searches = 'vultus_searches_total{way="sql"}'
    assert after[searches] - before[searches] == 4


async def test_metrics_can_be_disabled(serve: Callable[..., Any]) -> None:
    api: Api = await serve(server={"metrics": "off"})

    assert (await api.client.get("/metrics")).status_code == 404


async def test_a_full_queue_is_reported_before_the_photo_is_sent(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    released, analyze_photos = threading.Event(), FacePipeline.analyze_photos

    def analyze_when_released(self: FacePipeline, requests: Any) -> Any:
        released.wait(60)
        return analyze_photos(self, requests)

    monkeypatch.setattr(FacePipeline, "analyze_photos", analyze_when_released)
    api: Api = await serve(inference={"workers": 1, "max_queue": 1})
    requests = [asyncio.create_task(api.recognize(portrait())) for _ in range(2)]
    async with asyncio.timeout(10):
        while api.pool.in_flight < 2:  # noqa: ASYNC110  the pool tells nobody
            await asyncio.sleep(0.001)
    read: list[bytes] = []

    async def body() -> Any:
        read.append(portrait())
        yield read[-1]

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    refused = await api.client.post("/v1/recognize", content=body(), headers=kind)
    released.set()
    await asyncio.gather(*requests)

    assert (refused.status_code, refused.json()["code"], read) == (503, "overloaded", [])
    assert int(refused.headers["retry-after"]) == refused.json()["retry_after_s"] >= 1
    assert (await measured(api))['vultus_refused_total{full="photos"}'] >= 1
