"""Whoever calls a service says for whom: its public methods take a principal, and use it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/vultus"

COLLABORATORS = {
    "AnalysisEngine": "sees a photo and no collection",
    "BackupSchedule": "a background job",
    "BundleReading": "part of an import",
    "BoundedStream": "a connection of the sender of webhooks",
    "CandidateEngine": "proposes numbers, which a search rescores",
    "CropVault": "works in the transaction of its caller, or opens what the backfill reads",
    "LastSeenLog": "is told whom matches name, and a background job",
    "ErasureLedger": "a background job, and is told by every commit",
    "IndexRegistry": "a background job",
    "GuardedBackend": "connects for the sender of webhooks",
    "Inventory": "a background job",
    "CollectionSealer": "a background job",
    "KeyDestroyer": "a background job, and is told by every commit",
    "JobSupervisor": "runs background jobs",
    "LiveStream": "acts for the principal that opened it",
    "StreamGallery": "of a stream, which acts for the principal that opened it",
    "LocalCandidateEngine": "proposes numbers, which a search rescores",
    "LookalikeFinder": "part of a registration",
    "OldSeals": "at start",
    "OutboxFollower": "a background job, which knows how far the outbox can be read",
    "PhotoAnalyzer": "sees a photo and no collection",
    "WebhookSender": "sends what services and jobs give it",
    "RecallMonitor": "a background job",
    "SourceRunner": "watches for the key that set the source up",
    "SourceSupervisor": "a background job, which watches for the keys that set the sources up",
    "SourceObserver": "is told by a watch",
    "SourceWatch": "feeds a stream, which was opened for a principal",
    "SecretVault": "works in the transaction of its caller",
    "Searcher": "searches for the services that opened the collection, and a background job",
}
"""Classes that only services and jobs call."""

EXCEPTIONS = {
    "AuditChain.extend": "a background job",
    "AccessService.authenticate": "finds out who calls",
    "AccessService.bootstrap_admin_key": "before there is anybody",
    "AccessService.record_uses": "a background job",
    "BackfillWorker.backfill_collection": "a background job",
    "BackfillWorker.run": "a background job",
    "CollectionService.ensure_default_collection": "at start",
    "Eraser.end_expired": "part of the background job, and of every command; records its own principal",
    "Eraser.sweep_expired": "a background job; records its own principal",
    "WebhookDispatcher.close": "a background job",
    "WebhookDispatcher.count_deliveries": "a background job",
    "WebhookDispatcher.dispatch": "a background job",
    "OutboxSightingLog.write_waiting": "a background job",
    "Scrubber.scrub_when_due": "a background job",
    "ShadowComparer.compare_next": "a background job",
    "ShadowComparer.compare_recognition": "a background job",
    "TicketService.list_live_secrets": "a background job",
    "TicketService.take_ticket": "finds out who comes",
}
CAPACITY = {"ensure_workers", "ensure_capacity", "reserve_slot"}
"""What the edge asks of the analyzer itself, before it knows who calls."""


def list_methods() -> list[tuple[str, ast.AsyncFunctionDef]]:
    return [
        (f"{node.name}.{method.name}", method)
        for path in sorted((SOURCE / "services").rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.AsyncFunctionDef) and not method.name.startswith("_")
    ]


METHODS = dict(list_methods())
SERVED = [name for name in METHODS if name not in EXCEPTIONS and name.split(".")[0] not in COLLABORATORS]


@pytest.mark.parametrize("name", SERVED)
def test_every_service_method_takes_a_principal_and_uses_it(name: str) -> None:
    method = METHODS[name]
    used = {node.id for statement in method.body for node in ast.walk(statement) if isinstance(node, ast.Name)}

    assert "principal" in [argument.arg for argument in method.args.args[1:3]], "first, or after the transaction"
    is_declared_only = isinstance(method.body[-1], ast.Expr) and ast.unparse(method.body[-1]) == "..."
    assert "principal" in used or is_declared_only, "but for protocols"


def test_the_exceptions_exist_and_need_to_be_some() -> None:
    without = {name for name, method in METHODS.items() if "principal" not in {arg.arg for arg in method.args.args}}

    assert EXCEPTIONS.keys() <= without
    assert COLLABORATORS.keys() <= {name.split(".")[0] for name in without}
    assert not {name for name in METHODS if name.split(".")[0] in COLLABORATORS} - without


def test_edges_call_no_collaborator() -> None:
    """But for a place in the admission queue, and in jobs."""
    call = re.compile(r"services\.(photo_analyzer|searcher|indexes|candidate_engine)\.(\w+)")
    called = {
        found.group(1, 2)
        for folder in ("api", "cli")
        for path in sorted((SOURCE / folder).rglob("*.py"))
        for found in call.finditer(path.read_text())
    }

    assert called == {("photo_analyzer", name) for name in CAPACITY}
