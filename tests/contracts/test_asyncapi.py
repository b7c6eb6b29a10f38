"""The AsyncAPI document: what the specification prescribes, as committed, with examples that its own schemas accept."""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.snapshot import LIVE_SNAPSHOT, render_description
from vultus.live.asyncapi import CLIENT_MESSAGES, SERVER_MESSAGES, build_asyncapi_schema, render_document
from vultus.live.close_codes import CloseCode
from vultus.schemas.live import PATH, ClientMessage

DOCUMENT = build_asyncapi_schema()
MESSAGES = DOCUMENT["components"]["messages"]
SPECIFICATION = "@asyncapi/specs@6.11.1"
EXAMPLES = [
    pytest.param(name, example["payload"], id=f"{name}-{at}")
    for name, message in MESSAGES.items()
    for at, example in enumerate(message.get("examples", ()))
]


@pytest.fixture(scope="module")
def specification(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The JSON schema that the AsyncAPI initiative publishes for version 3.0.0."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, which brings AsyncAPI's schema")
    folder = tmp_path_factory.mktemp("specification")
    done = subprocess.run(
        [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", SPECIFICATION],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"AsyncAPI's schema cannot be installed: {done.stderr[-200:]}")
    return json.loads((folder / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json").read_text())


@pytest.mark.parametrize("prefix", ["", "/faces"])
def test_the_document_is_asyncapi_3(specification: Any, prefix: str) -> None:
    validator = jsonschema_rs.validator_for(specification)

    document = json.loads(render_document(prefix))
    assert document["servers"]["this"].get("pathname", "") == prefix
    assert [str(error) for error in validator.iter_errors(document)] == []
    assert [*validator.iter_errors(DOCUMENT | {"channels": {"live": {"address": 1}}})], "the schema refuses something"


def test_every_reference_resolves() -> None:
    text = json.dumps(DOCUMENT)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        found: Any = DOCUMENT
        for key in Path(reference.removeprefix("#")).parts[1:]:
            found = found[key]
        assert found, reference


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_example_is_of_its_schema_and_its_model(name: str, example: Any) -> None:
    reference = MESSAGES[name]["payload"]["$ref"]
    schema = {"$ref": reference, "components": DOCUMENT["components"]}

    jsonschema_rs.validate(schema, example)
    if name in CLIENT_MESSAGES:
        assert isinstance(ClientMessage.validate_json(json.dumps(example)), CLIENT_MESSAGES[name])
    else:
        SERVER_MESSAGES[name].model_validate_json(json.dumps(example))


def test_every_message_of_the_document_is_one_of_the_channel_and_an_operation() -> None:
    channel = DOCUMENT["channels"]["live"]
    operations = DOCUMENT["operations"].values()

    assert channel["address"] == PATH
    assert MESSAGES.keys() == channel["messages"].keys() == {"frame", *CLIENT_MESSAGES, *SERVER_MESSAGES}
    listed = [one["$ref"].rsplit("/")[-1] for operation in operations for one in operation["messages"]]
    assert sorted(listed) == sorted(MESSAGES)
    assert channel["x-close-codes"].keys() == {str(code.value) for code in CloseCode}


def test_the_document_is_the_committed_one() -> None:
    """Clients are written after it: `make openapi` writes a change that is meant, which is committed with the code."""
    committed, current = LIVE_SNAPSHOT.read_text(encoding="utf-8"), render_description(DOCUMENT)
    changes = difflib.unified_diff(committed.splitlines(), current.splitlines(), n=3, lineterm="")

    assert not list(changes), "the protocol changed: read the difference, run `make openapi`, commit docs/asyncapi.json"


@pytest.mark.parametrize("code", list(CloseCode), ids=lambda code: code.name)
def test_every_close_code_is_in_the_manual(code: CloseCode) -> None:
    assert f"| {code.value} `{code.name}` |" in LIVE_SNAPSHOT.with_name("live.md").read_text()
