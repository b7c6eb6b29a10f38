"""Readiness says how the background jobs are doing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from tests.faces import portrait

from vultus.errors import OverloadedError
from vultus.services import jobs
from vultus.services.background import run_jobs

if TYPE_CHECKING:
    import pytest
    from tests.api.conftest import Api

NOBODY = {"Authorization": ""}


async def wait_for_runs(api: Api) -> None:
    """Wait until every job that has an interval has run, and has ended that run."""
    async with asyncio.timeout(20):
        for job in api.services.jobs.list_statuses():
            while job.interval_s and not (job.last_success_at or job.consecutive_failures):  # noqa: ASYNC110  no event
                await asyncio.sleep(0.01)


async def test_readiness_lists_the_jobs_and_when_they_last_succeeded(api: Api) -> None:
    async with run_jobs(api.services):
        await wait_for_runs(api)
        ready = await api.client.get("/v1/health/ready", headers=NOBODY)

    assert ready.status_code == 200
    assert ready.json()["status"] == "ok"
    assert all(job["last_success_at"] for job in ready.json()["jobs"] if job["interval_s"])
    assert [(job["name"], job["interval_s"], job["is_overdue"]) for job in ready.json()["jobs"]] == [
        ("inventory", 60, False),
        ("expiry-sweep", 60, False),
        ("scrub", 300, False),
        ("last-seen", 10, False),
        ("audit-chain", 2, False),
        ("erasure-ledger", 5, False),
        ("key-destruction", 5, False),
        ("sealing", 5, False),
        ("backfill", 5, False),
        ("shadow-comparison", None, False),
        ("index-sync", 1, False),
        ("recall-monitor", None, False),
        ("event-follower", None, False),
        ("webhooks", None, False),
        ("delivery-count", 15, False),
        ("sightings", 1, False),
        ("sources", 2, False),
        ("key-usage", 60, False),
        ("backup", 300, False),
    ]


async def test_an_overdue_job_degrades_the_service_and_does_not_close_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(api.services.eraser, "sweep_expired", fail)
    monkeypatch.setattr(jobs, "MIN_OVERDUE_S", 0)
    monkeypatch.setattr(jobs, "OVERDUE_INTERVALS", 0)
    async with run_jobs(api.services):
        await wait_for_runs(api)
        ready = await api.client.get("/v1/health/ready", headers=NOBODY)

    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    (sweep,) = [job for job in ready.json()["jobs"] if job["name"] == "expiry-sweep"]
    assert (sweep["last_success_at"], sweep["consecutive_failures"], sweep["is_overdue"]) == (None, 1, True)


async def test_a_collection_whose_vectors_nothing_makes_is_named(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """As after an update that replaces a network."""
    await api.client.post("/v1/collections", json={"name": "staff"})
    async with api.services.database.transaction() as work:
        staff = await work.collections.get_collection_by_name("staff")
        await work.collections.update_collection(staff.id, contract_id="dlib-resnet-0ld0ld00")
    async with run_jobs(api.services):
        await wait_for_runs(api)
        ready = (await api.client.get("/v1/health/ready", headers=NOBODY)).json()
    refused = (await api.client.post("/v1/recognize", data={"collection": "staff"}, files={"photo": portrait()})).json()

    assert ready["status"] == "degraded"
    assert [(one["contract_id"], one["collections"]) for one in ready["unserved"]] == [("dlib-resnet-0ld0ld00", 1)]
    assert "staff" not in str(ready), "readiness needs no key"
    assert "Nobody is recognised in 'staff'" in caplog.text
    assert "vultus transition begin builtin -c staff" in caplog.text
    assert refused["code"] == "pack_not_loaded"
    assert "vultus transition begin builtin" in refused["detail"]


async def test_a_full_disk_is_no_overload_and_heals(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise asyncpg.DiskFullError("could not extend file: No space left on device")

    await api.client.get("/v1/health/ready")
    with monkeypatch.context() as patch:
        patch.setattr("vultus.db.repositories.collections.CollectionRepository.add_collection", refuse)
        refused = await api.client.post("/v1/collections", json={"name": "full"})
        patch.setattr("vultus.db.health.text", refuse)
        ready = await api.client.get("/v1/health/ready", headers=NOBODY)
        searched = await api.client.get("/v1/collections")
    healed = await api.client.get("/v1/health/ready", headers=NOBODY)

    assert (refused.status_code, refused.json()["code"]) == (503, "storage_full")
    assert (ready.status_code, ready.json()["code"]) == (503, "storage_full")
    assert searched.status_code == 200
    assert healed.status_code == 200
    assert [record.levelname for record in caplog.records if "disk of the database" in record.message] == [
        "ERROR",
        "WARNING",
    ]


async def test_an_access_line_says_what_was_refused_to_whom_and_why(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OverloadedError("Every database connection is in use; try again.")

    caplog.set_level("INFO", "vultus.access")
    await api.client.get("/v1/collections/nowhere/persons")
    monkeypatch.setattr(api.services.collections, "list_collections", fail)
    await api.client.get("/v1/collections")

    missing, failed = [vars(record) for record in caplog.records if record.name == "vultus.access"]
    (key,) = (await api.client.get("/v1/keys")).json()["items"]
    assert (missing["levelname"], missing["status"], missing["code"], missing["cause"]) == (
        "INFO",
        404,
        "not_found",
        None,
    )
    assert missing["route"].startswith("/v1/collections/{")
    assert (missing["key"], missing["client"]) == (key["id"], "127.0.0.1")
    assert (failed["levelname"], failed["status"], failed["code"]) == ("WARNING", 503, "overloaded")
    assert failed["cause"] == "Every database connection is in use; try again."


async def test_metrics_tell_what_is_stored_decided_and_refused(api: Api) -> None:
    await api.client.post("/v1/recognize", files={"photo": portrait()})
    await api.client.get("/v1/collections/nowhere")
    async with run_jobs(api.services):
        await wait_for_runs(api)
        text = (await api.client.get("/metrics", headers=NOBODY)).text

    for line in (
        'vultus_verdicts_total{operation="recognize",verdict="no_match"}',
        'vultus_errors_total{code="not_found",status="404"}',
        'vultus_database_connections{state="in_use"}',
        "vultus_persons 0.0",
        "vultus_expired_consents 0.0",
        "vultus_unserved_collections 0.0",
        "vultus_worker_resident_memory_bytes",
        "vultus_build_info{python=",
    ):
        assert line in text


async def test_metrics_count_the_runs_of_every_job(api: Api) -> None:
    async with run_jobs(api.services):
        await wait_for_runs(api)
        text = (await api.client.get("/metrics", headers=NOBODY)).text

    assert 'vultus_job_runs_total{job="expiry-sweep",outcome="succeeded"}' in text
    assert 'vultus_job_last_success_timestamp_seconds{job="expiry-sweep"}' in text
