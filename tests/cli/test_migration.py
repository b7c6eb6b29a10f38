"""`vultus transition` from start to finish, on a process with two packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_commands import GRANT, Cli, cli
from tests.faces import STRANGER, drawn, encoded, portrait
from tests.packs import zoomed

from vultus.models.pipelines import PipelineRegistry

__all__ = ["cli"]


@pytest.fixture
def two_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    load = PipelineRegistry.load

    def loaded(*arguments: Any) -> PipelineRegistry:
        default = load(*arguments).default
        return PipelineRegistry(default, zoomed(default))

    monkeypatch.setattr(PipelineRegistry, "load", loaded)


@pytest.mark.usefixtures("two_packs")
async def test_a_migration_from_start_to_finish(cli: Cli) -> None:
    await cli("register", cli.photo("people/ada.jpg", portrait()), "--name", "Ada", *GRANT)
    await cli("register", cli.photo("bob.jpg", encoded(drawn(STRANGER))), "--name", "Bob", *GRANT)

    await cli.json("transition", "status", code=3)
    assert (await cli.json("transition", "begin", "zoomed"))["second"]["pending"] == 2
    assert (await cli.json("transition", "run"))["second"]["failed"] == {"no_crop": 2}
    refused = await cli.json("transition", "switch", code=4)
    assert refused["error"]["code"] == "transition_incomplete"
    resubmitted = await cli.json("transition", "supply", str(Path(cli.folder, "people")))
    assert resubmitted == {"outcomes": {"carried": 1}, "unknown": []}
    assert "no_crop 1" in (await cli("transition", "status")).stdout
    (bob,) = await cli.json("transition", "left-behind")
    assert (bob["name"], bob["reasons"]) == ("Bob", "no_crop")
    assert (await cli.json("transition", "compare"))["compared"] == 1
    assert "1 of 1 faces agreed" in (await cli("transition", "compare")).stdout
    assert "→" in (await cli("transition", "switch", "--leave-behind")).stdout
    assert (await cli.json("transition", "finish", "--leave-behind"))["persons_left_behind"] == 1
