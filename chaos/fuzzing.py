"""F5: does any request that the OpenAPI document allows, or forbids, get a 5xx or a status that is not documented?

schemathesis draws the requests: in all of the API with an administrator's key; once more for a collection and a person
that exist, so that requests get past the look-up; and with a key that may only recognise. Afterwards every list is read
to its end: a stored value must not break a later answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from chaos.client import CONSENT, Client
from chaos.outcome import Outcome, Plan
from chaos.service import Service, run_service

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = "0 × 5xx, 0 undocumented statuses or answers, 0 rows that break a later read"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
AIMED = '[parameters]\n"path.collection" = "fuzzed"\n"path.person" = "external_id:fuzzed"\n'
KEYS_PATHS = "^/v1/keys/"
"""A key that is drawn from an answer could be the one the requests are sent with."""

LIMIT_S = 900.0


class Run(NamedTuple):
    """A run of schemathesis.

    Attributes:
        name: What is sent.
        key: With which key.
        examples: Cases per operation beside those of every boundary.
        config: Its configuration file.
        options: Further options.
    """

    name: str
    key: str
    examples: int
    config: str = ""
    options: Sequence[str] = ()


async def measure(plan: Plan) -> Outcome:
    """Fuzz the API, then read everything."""
    outcome = Outcome()
    async with run_service() as service, service.open_client() as client:
        _, recognize = await client.create_key(role="recognize")
        _, doomed = await client.create_key(role="admin")
        (await client.http.post("/v1/collections", json={"name": "fuzzed"})).raise_for_status()
        person = {"external_id": "fuzzed", "name": "Ada", "consent": CONSENT}
        (await client.http.post("/v1/collections/fuzzed/persons", json=person)).raise_for_status()
        keep = ("--exclude-method", "DELETE", "--exclude-path-regex", KEYS_PATHS)
        runs = [Run("aimed", service.key, plan.choose(40, 5), AIMED, keep)]
        if not plan.short:
            runs += [
                Run("all", service.key, 40, options=("--exclude-path-regex", KEYS_PATHS)),
                Run("keys", doomed, 100, options=("--include-path-regex", KEYS_PATHS)),
                Run("recognise key", recognize, 5),
            ]
        for run in runs:
            await _fuzz(service, run, plan, outcome)
        await _read_all(client, outcome)
    return outcome


async def _fuzz(service: Service, run: Run, plan: Plan, outcome: Outcome) -> None:
    with tempfile.TemporaryDirectory(prefix="vultus-chaos-") as folder:
        report, config = Path(folder) / "report.json", Path(folder) / "schemathesis.toml"
        config.write_text(run.config)
        command = [Path(sys.executable).parent / "schemathesis", "--config-file", config, "run"]
        command += [f"http://127.0.0.1:{service.port}/openapi.json", "-H", f"Authorization: Bearer {run.key}"]
        command += ["-H", f"X-API-Key: {run.key}"]  # else it draws another one, and both are refused
        command += ["--checks", CHECKS, "--phases", "fuzzing" if plan.short else "examples,coverage,fuzzing"]
        command += ["-n", str(run.examples), "--seed", str(plan.seed), "--continue-on-failure", "--no-shrink"]
        command += ["--report", "json", "--report-json-path", report, "--generation-database", "none", *run.options]
        process = await asyncio.create_subprocess_exec(
            *map(str, command), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if not report.is_file():
            raise RuntimeError(f"schemathesis wrote no report:\n{printed.decode()[-3000:]}")
        _count_run(run, json.loads(report.read_text()), outcome)


def _count_run(run: Run, report: dict[str, Any], outcome: Outcome) -> None:
    outcome.tries += report["test_cases"]["generated"]
    outcome.failures += [f"{run.name}: {json.dumps(failure)[:400]}" for failure in report["failures"]]
    outcome.failures += [f"{run.name}: {json.dumps(error)[:400]}" for error in report["errors"]]
    outcome.notes.append(f"{run.name}: {report['test_cases']['generated']:,} requests")
    if not report["complete"]:
        outcome.failures.append(f"{run.name}: stopped early: {report['stop_reason']}")


async def _read_all(client: Client, outcome: Outcome) -> None:
    """Read every list, and what belongs to every person."""
    rows = 0
    collections = await _read_list(client, "/v1/collections", outcome)
    for path in ("/v1/keys", "/v1/audit"):
        rows += len(await _read_list(client, path, outcome))
    for collection in collections:
        persons = await _read_list(client, f"/v1/collections/{collection['id']}/persons", outcome)
        for person in persons:
            for part in ("faces", "consents"):
                path = f"/v1/collections/{collection['id']}/persons/{person['id']}/{part}"
                rows += len(await _read_list(client, path, outcome))
        rows += len(persons)
    outcome.notes.append(f"{rows + len(collections):,} rows read afterwards")


async def _read_list(client: Client, path: str, outcome: Outcome) -> list[dict[str, Any]]:
    try:
        found = await client.list_items(path)
    except Exception as error:  # noqa: BLE001  whatever is wrong with a stored row
        outcome.check(held=False, failure=f"{path} cannot be read: {error}")
        return []
    outcome.check(held=True, failure="")
    return found
