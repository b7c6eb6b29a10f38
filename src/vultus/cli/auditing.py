"""`vultus audit`: who changed what, why a door opened, and whether the record is as it was written."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, load_settings, out, parse_moment, print_json, print_table
from vultus.cli.failures import EXIT_FOUND
from vultus.cli.officers import LimitOption, fetch_pages, run_with_database
from vultus.domain import AuditEntry, AuditFilter
from vultus.domain.decision_records import DecisionExplanation, DecisionFilter, DecisionRecord
from vultus.errors import NotFoundError
from vultus.schemas.decisions import DecisionExplanationOut, DecisionRecordOut
from vultus.schemas.system import AuditOut
from vultus.sealing.custody import open_custody
from vultus.sealing.signatures import encode_public_key, verify_document
from vultus.services.audit import AuditService
from vultus.services.audit_chain import CHECKPOINT, AuditChain

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain.audit_chain import AuditCheck

app = typer.Typer()

Moment = Annotated[datetime | None, typer.Option(parser=parse_moment, metavar="DATE", help="UTC unless it has a zone.")]
PersonOption = Annotated[UUID | None, typer.Option(help="Only what concerns this person, by id.")]
ActorOption = Annotated[str | None, typer.Option(help="Only what was done by: key:ID, cli, sweep, …")]
OldestFirstOption = Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest entry.")]


@app.callback(invoke_without_command=True)
def list_audit(
    context: typer.Context,
    person: PersonOption = None,
    actor: ActorOption = None,
    action: Annotated[str | None, typer.Option(help="Only this action: person.erased, consent.withdrawn, …")] = None,
    since: Moment = None,
    until: Moment = None,
    limit: LimitOption = 100,
    oldest_first: OldestFirstOption = False,
    as_json: JsonOption = False,
) -> None:
    """List who changed what, and when."""
    if context.invoked_subcommand is not None:
        return
    only = AuditFilter(person_id=person, actor=actor, action=action, since=since, until=until)

    async def fetch_entries(database: Database) -> tuple[AuditEntry, ...]:
        service = AuditService(database)
        return await fetch_pages(
            lambda last, size: service.list_entries(
                COMMAND_LINE, after=last, limit=size, only=only, newest_first=not oldest_first
            ),
            None,
            limit,
        )

    found = run_with_database(fetch_entries)
    if as_json:
        print_json([AuditOut.from_attributes(entry).model_dump(mode="json") for entry in found])
        return
    rows = [
        (entry.at, entry.actor, entry.action, entry.person_id or entry.object_id, _format_detail(entry.detail))
        for entry in found
    ]
    print_table("Audit", ("when", "who", "what", "whom or which", "detail"), rows)


@app.command("checkpoint")
def sign_checkpoint() -> None:
    """Print the signed end of the record, for a file elsewhere: `vultus audit checkpoint > FILE`."""
    settings = load_settings()

    async def sign(database: Database) -> bytes:
        keys = open_custody(settings).keys
        if not keys.exists():
            keys.create()
        return await AuditChain(database, settings.audit_notes_file).sign_checkpoint(COMMAND_LINE, keys.load())

    sys.stdout.buffer.write(run_with_database(sign))


@app.command("verify")
def verify_audit(
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A file of `vultus audit checkpoint`; can be given several times.")
    ] = None,
    public_key: Annotated[
        str | None, typer.Option(help="Of the installation that signed; this one's unless given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no entry was changed, deleted or moved; exit code 1 if one was."""
    settings = load_settings()
    if checkpoint and public_key is None:
        public_key = encode_public_key(open_custody(settings).keys.load().signing_key.public_key())
    signed = [verify_document(CHECKPOINT, file.read_bytes(), public_key=public_key or "") for file in checkpoint or ()]

    async def verify(database: Database) -> AuditCheck:
        return await AuditChain(database, settings.audit_notes_file).verify(COMMAND_LINE, signed)

    found = run_with_database(verify)
    if as_json:
        counts = {"links": found.links, "unlinked": found.unlinked, "oldest_kept": found.oldest_kept}
        print_json({**counts, "checkpoints": len(signed), "findings": list(found.findings)})
    else:
        for finding in found.findings:
            out.print_labelled("fail", "red", f" {finding}")
        out.print(
            f"Links read: {found.links}; findings: {len(found.findings)}; not linked yet: {found.unlinked}; signed "
            f"checkpoints held against them: {len(signed)}."
        )
        if found.oldest_kept:
            out.print(f"Entries from before {found.oldest_kept:%Y-%m-%d} were deleted for their age.")
    if found.findings:
        raise typer.Exit(EXIT_FOUND)


@app.command("decisions")
def list_decisions(
    person: PersonOption = None,
    actor: ActorOption = None,
    since: Moment = None,
    until: Moment = None,
    limit: LimitOption = 100,
    oldest_first: OldestFirstOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what was decided about photos, vectors and live video, where a collection records that."""
    only = DecisionFilter(person_id=person, actor=actor, since=since, until=until)
    found = run_with_database(lambda database: _fetch_decisions(database, only, limit, newest_first=not oldest_first))
    if as_json:
        print_json([DecisionRecordOut.from_domain(one).model_dump(mode="json") for one in found])
        return
    rows = [(one.id, one.at, one.actor, one.kind, one.verdict, one.person_id) for one in found]
    print_table("Decisions", ("id", "when", "who asked", "what", "verdict", "person"), rows)


@app.command("explain")
def explain_decision(
    reference: Annotated[
        str, typer.Argument(metavar="ID", help="Of a decision, an event of live video, or a request.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Explain why a door opened, or stayed shut: what was compared, and by which rules."""
    found = run_with_database(lambda database: _explain(database, reference))
    if as_json:
        print_json([DecisionExplanationOut.from_explanation(one).model_dump(mode="json") for one in found])
        return
    for one in found:
        _show_explanation(one)


async def _explain(database: Database, reference: str) -> list[DecisionExplanation]:
    """Return the decision of this id, or those of the request of this id."""
    service = AuditService(database)
    try:
        return [await service.explain_decision(COMMAND_LINE, UUID(reference))]
    except (ValueError, NotFoundError) as error:
        found = await _fetch_decisions(database, DecisionFilter(request_id=reference), None, newest_first=False)
        if not found and isinstance(error, NotFoundError):
            raise
        if not found:
            raise NotFoundError(
                f"No decision was recorded of the request '{reference}': the collection's policy did not ask for it "
                "(record_searches), or it was deleted for its age."
            ) from None
        return [await service.explain_decision(COMMAND_LINE, one.id) for one in found]


async def _fetch_decisions(
    database: Database, only: DecisionFilter, limit: int | None, *, newest_first: bool
) -> tuple[DecisionRecord, ...]:
    service = AuditService(database)
    return await fetch_pages(
        lambda last, size: service.list_decisions(
            COMMAND_LINE, after=last, limit=size, only=only, newest_first=newest_first
        ),
        None,
        limit,
    )


def _show_explanation(found: DecisionExplanation) -> None:
    record, detail, consent, rules = found.record, found.record.detail, found.consent, found.rules
    liveness = detail["liveness"]
    settings = ", ".join(f"{name} {value}" for name, value in detail["policy"].items() if value is not None)
    values = {
        "id": record.id,
        "when": record.at,
        "who asked": f"{record.actor} ({found.key_name})" if found.key_name else record.actor,
        "request": record.request_id,
        "camera or session": record.origin_id,
        "collection": record.collection_id,
        "verdict": f"{record.verdict} ({', '.join(detail['reasons'])})",
        "person": record.person_id,
        "clearness": record.band,
        "similarity": None if record.similarity is None else f"{record.similarity:.4f}",
        "threshold": f"{record.threshold:.4f}, read from: {detail['calibration']}",
        "strangers who reach it": f"{detail['false_match_rate']:.3g} of comparisons, "
        f"{detail['false_positive_identification_rate']:.3g} of searches among {detail['gallery_size']} templates",
        "network": detail["contract_id"],
        "liveness": liveness and f"{liveness['reason']} ({liveness['score']})",
        "rules": settings,
        "rules since": detail["rules_since"],
        "rules made by": rules and f"{rules.actor}, {rules.action}, entry {rules.id}",
        "consent": consent and f"{consent.id}: {consent.purpose}, recorded by {consent.recorded_by}",
        "consent given": consent and consent.granted_at,
    }
    print_table("Decision", ("what", "value"), [(name, value) for name, value in values.items() if value is not None])


def _format_detail(detail: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())
