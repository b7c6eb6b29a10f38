"""`register`, `recognize`, `verify`, `compare`: several photos, standard input, drawings, sentences, exit codes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from PIL import Image
from tests.cli.test_commands import GRANT, Cli, cli
from tests.faces import STRANGER, drawn, encoded, nobody, portrait

from vultus.cli.people import format_liveness
from vultus.domain import Liveness, LivenessReason

__all__ = ["cli"]


@pytest.mark.parametrize(("name", "kind"), [("out.png", "PNG"), ("out.JPG", "JPEG"), ("out.webp", "WEBP")])
async def test_a_drawing_is_of_the_format_that_its_suffix_says(name: str, kind: str, cli: Cli) -> None:
    await cli("register", cli.photo("ada.jpg", portrait()), "--name", "José Ñandú 张伟", *GRANT)
    target = cli.folder / name

    table = await cli("recognize", cli.photo("party.jpg", portrait(angle=6)), "--draw", str(target))

    assert "José Ñandú 张伟" in table.stdout
    with Image.open(target) as opened:
        assert (opened.format, opened.size) == (kind, (512, 512))


async def test_a_name_without_a_font_is_drawn_as_its_number_and_said(cli: Cli) -> None:
    await cli("register", cli.photo("ada.jpg", portrait()), "--name", "\U00013000", *GRANT)

    drawn_on = await cli("recognize", cli.photo("b.jpg", portrait(angle=6)), "--draw", str(cli.folder / "out.png"))

    assert "No font here has the letters of \U00013000" in drawn_on.stderr


@pytest.mark.parametrize("name", ["nowhere/x.png", ".", "x.gif", "x", "ada.jpg"])
async def test_a_drawing_that_cannot_be_written_is_refused_before_the_work(name: str, cli: Cli) -> None:
    ada = cli.photo("ada.jpg", portrait())

    refused = await cli.json("recognize", ada, "--draw", str(cli.folder / name), code=2)

    assert refused["error"]["detail"].startswith("--draw ")
    assert not (cli.folder / "data").exists()
    assert (cli.folder / "ada.jpg").read_bytes() == portrait()


async def test_of_several_photos_a_bad_one_stops_no_other(cli: Cli) -> None:
    await cli("register", cli.photo("ada.jpg", portrait()), "--name", "Ada", *GRANT)
    photos = [cli.photo("1.jpg", portrait(angle=6)), cli.photo("2.jpg", b"none"), cli.photo("3.jpg", nobody())]

    found = await cli.json("recognize", *photos, code=1)
    shown = await cli("recognize", *photos, code=1)

    assert [one["file"] for one in found] == ["1.jpg", "2.jpg", "3.jpg"]
    assert found[0]["faces"][0]["person"]["name"] == "Ada"
    assert found[1]["error"]["code"] == "not_an_image"
    assert found[2]["faces"] == []
    assert "1 face in 1.jpg" in shown.stdout
    assert "2.jpg (not_an_image)" in shown.stderr


@pytest.mark.usefixtures("unmeasured_processes")
async def test_a_photo_comes_from_standard_input(cli: Cli) -> None:
    piped = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "vultus", "recognize", "-", "--json"],
        input=portrait(),
        capture_output=True,
    )

    found = json.loads(piped.stdout)
    assert (found["file"], len(found["faces"])) == ("standard input", 1)


async def test_no_more_is_read_than_a_photo_may_have(cli: Cli) -> None:
    refused = await cli.json("recognize", "/dev/zero", code=2)

    assert refused["error"]["code"] == "image_too_large"


async def test_refusals_speak_of_options_and_files(cli: Cli) -> None:
    ada = cli.photo("ada.jpg", portrait())
    await cli("register", ada, "--name", "Ada", *GRANT)

    lookalike = await cli("register", cli.photo("b.jpg", portrait(angle=4)), "--name", "Bob", *GRANT, code=2)
    wall = await cli("register", cli.photo("wall.jpg", nobody()), "--name", "Bob", *GRANT, code=2)

    assert "b.jpg: the face is already enrolled" in lookalike.stderr
    assert "use --allow-lookalike after a human has checked" in lookalike.stderr
    assert "wall.jpg: " in wall.stderr


@pytest.mark.parametrize(
    ("score", "reason", "shown"),
    [(0.98, "live", "yes (0.98)"), (0.02, "spoof", "no, spoof (0.02)"), (0.5, "face_too_small", "no, face too small")],
)
def test_liveness_is_shown_with_its_reason(score: float, reason: str, shown: str) -> None:
    assert format_liveness(Liveness(score, LivenessReason(reason))).startswith(shown)


async def test_a_photo_is_verified_and_compared_with_an_exit_code(cli: Cli) -> None:
    made = await cli.json("register", cli.photo("ada.jpg", portrait()), "--external-id", "E-7", "--name", "Ada", *GRANT)
    same, other = cli.photo("same.jpg", portrait(angle=4)), cli.photo("other.jpg", encoded(drawn(STRANGER)))

    for person in ("E-7", " E-7 ", "external_id:E-7", made["person"]["id"]):
        assert (await cli.json("verify", person, same))["verdict"] == "match"
    assert (await cli.json("verify", "E-7", other, code=1))["verdict"] == "no_match"
    assert (await cli.json("verify", "E-8", same, code=3))["error"]["code"] == "not_found"
    assert "match" in (await cli("verify", "E-7", same)).stdout
    assert (await cli.json("compare", same, cli.photo("ada.jpg", portrait())))["verdict"] == "match"
    assert "no match" in (await cli("compare", same, other, code=1)).stdout.replace("_", " ")


async def test_moments_are_taken_as_the_api_writes_them(cli: Cli) -> None:
    ends = []
    for number, moment in enumerate(("2030-01-01", "2030-01-01T00:00:00Z", "2030-01-01T01:00:00+01:00")):
        photo = cli.photo(f"{number}.jpg", portrait(angle=number))
        options = ["--external-id", "E-7", *GRANT, "--expires", moment]
        ends.append((await cli.json("register", photo, *options))["consent"]["expires_at"])

    assert ends == ["2030-01-01T00:00:00Z"] * 3
