"""Prometheus metrics, in one registry: requests, photos and seconds, no personal data."""

from __future__ import annotations

import platform
from functools import cache
from typing import TypeVar

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from vultus import __version__

Labelled = TypeVar("Labelled", Counter, Histogram)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REQUESTS = Counter("vultus_requests", "Requests answered.", ("route", "method", "status"), registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "vultus_request_seconds",
    "From the first byte of a request to the last of its answer.",
    ("route", "method"),
    buckets=SECONDS,
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "vultus_stage_seconds", "Stages of an analysis, and the search.", ("stage",), buckets=SECONDS, registry=REGISTRY
)
PHOTOS_WAITING = Gauge("vultus_photos_waiting", "Photos in line for a worker.", registry=REGISTRY)
WORKERS_BUSY = Gauge("vultus_workers_busy", "Workers that analyse.", registry=REGISTRY)
WORKERS_LOST = Counter("vultus_workers_lost", "Workers that died and were replaced.", registry=REGISTRY)
BATCH_PHOTOS = Histogram(
    "vultus_batch_photos", "Photos that a worker took together.", buckets=(1, 2, 4, 8, 16, 32), registry=REGISTRY
)
REFUSALS = Counter(
    "vultus_refused", "Refused for being full: of photos, of requests, of bytes.", ("full",), registry=REGISTRY
)

LIVE_SESSIONS = Gauge(
    "vultus_live_sessions", "Open live sessions, with those that wait to be resumed.", registry=REGISTRY
)
LIVE_FRAMES = Counter(
    "vultus_live_frames", "Frames of live sessions: processed, dropped or refused.", ("outcome",), registry=REGISTRY
)
LIVE_SECONDS = Histogram(
    "vultus_live_seconds", "From the last byte of a frame to its answer.", buckets=SECONDS, registry=REGISTRY
)

JOB_RUNS = Counter("vultus_job_runs", "Runs of background jobs.", ("job", "outcome"), registry=REGISTRY)
JOB_LAST_SUCCESS = Gauge(
    "vultus_job_last_success_timestamp_seconds",
    "End of a background job's last successful run.",
    ("job",),
    registry=REGISTRY,
)
LAST_BACKUP = Gauge(
    "vultus_last_backup_timestamp_seconds", "When the newest backup by the server was begun.", registry=REGISTRY
)
INDEX_FACES = Gauge("vultus_index_faces", "Faces in candidate indexes.", registry=REGISTRY)
INDEX_BYTES = Gauge("vultus_index_bytes", "Memory of candidate indexes.", registry=REGISTRY)
TEMPLATES_LOST = Counter(
    "vultus_templates_lost", "Times that a sealed template of somebody enrolled did not open.", registry=REGISTRY
)
TEMPLATES_UNSEALED = Gauge(
    "vultus_templates_unsealed", "Templates of sealed collections that are not sealed yet.", registry=REGISTRY
)
INDEX_DEGRADED = Gauge("vultus_index_doubted", "Collections whose index lost people.", registry=REGISTRY)
SEARCHES = Counter("vultus_searches", "Probes searched for, by way: index, graph or sql.", ("way",), registry=REGISTRY)
RECALL_PROBES = Counter("vultus_watch_probes", "Probes searched for by index and again exactly.", registry=REGISTRY)
RECALL_DISAGREEMENTS = Counter(
    "vultus_watch_disagreed", "Of them, those with another closest person.", registry=REGISTRY
)
RECALL_EXPECTED = Counter("vultus_watch_wanted", "Persons above the threshold, by exact search.", registry=REGISTRY)
RECALL_RETURNED = Counter("vultus_watch_found", "Of them, those that the index listed: the recall.", registry=REGISTRY)

ERRORS = Counter("vultus_errors", "Problems answered, by code and status.", ("code", "status"), registry=REGISTRY)
VERDICTS = Counter(
    "vultus_verdicts", "Decisions, by operation and verdict.", ("operation", "verdict"), registry=REGISTRY
)
CONNECTIONS = Gauge("vultus_database_connections", "Connections of the pool, by state.", ("state",), registry=REGISTRY)
PERSONS = Gauge("vultus_persons", "Persons stored, by PostgreSQL's statistics.", registry=REGISTRY)
FACES = Gauge("vultus_faces", "Templates stored, by PostgreSQL's statistics.", registry=REGISTRY)
EXPIRED = Gauge("vultus_expired_consents", "Consents that have ended and are not swept yet.", registry=REGISTRY)
UNSERVED = Gauge("vultus_unserved_collections", "Collections whose vectors no loaded pack makes.", registry=REGISTRY)
WORKER_MEMORY = Gauge(
    "vultus_worker_resident_memory_bytes",
    "Memory of the processes that analyse photos, as each sees it.",
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "vultus_webhook_attempts", "Attempts to deliver an event: delivered, failed, dead.", ("outcome",), registry=REGISTRY
)
DELIVERIES = Gauge(
    "vultus_webhook_deliveries",
    "Deliveries of all webhooks that wait, and that are dead.",
    ("state",),
    registry=REGISTRY,
)
SIGHTINGS_LOST = Counter(
    "vultus_sightings_lost", "Sightings dropped while the database was away for long.", registry=REGISTRY
)
BUILD = Info("vultus_build", "Version of the program and of Python.", registry=REGISTRY)
BUILD.info({"version": __version__, "python": platform.python_version()})


def measure_worker_memory() -> float:
    """Return the resident memory of this process' children, bytes; pages that they share count for each."""
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return float(total)


WORKER_MEMORY.set_function(measure_worker_memory)


@cache
def get_labelled(metric: Labelled, *labels: str) -> Labelled:
    """Return a metric with these labels; cached, because the library takes a lock per look-up."""
    return metric.labels(*labels)


def list_samples(name: str) -> list[tuple[dict[str, str], float]]:
    """Return the samples with this name, as labels and value."""
    found = REGISTRY.restricted_registry([name]).collect()
    return [(sample.labels, sample.value) for metric in found for sample in metric.samples if sample.name == name]


def render_metrics() -> tuple[bytes, str]:
    """Return all metrics in Prometheus' text format, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
