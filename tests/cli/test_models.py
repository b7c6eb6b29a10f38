"""`vultus models` from listing to choosing, on the installed networks and on files of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.weights import FOLDER, real_weights
from typer.testing import CliRunner, Result

from vultus.cli import models
from vultus.models.catalog.packs import BUILTIN, NETWORKS, PACKS

INSIGHTFACE = "InsightFace non-commercial"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VULTUS_MODELS__MIRROR", (tmp_path / "mirror").as_uri())
    monkeypatch.setenv("COLUMNS", "200")


def call(*words: object) -> Result:
    return CliRunner().invoke(models.app, [str(word) for word in words])


def asked(*words: object, code: int = 0) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_the_list_names_every_network_and_pack_with_its_state() -> None:
    listed = asked("list")

    assert [row["name"] for row in listed["networks"]] == list(NETWORKS)
    assert set(listed["packs"]) == set(PACKS)
    states = {row["name"]: row["state"] for row in listed["networks"]}
    assert (states["mtcnn"], states["yunet"], listed["default"]) == ("present", "absent", "builtin")
    printed = call("list").stdout
    assert "arcface-r50" in printed and "99.83" in printed and "buffalo_l" in printed


def test_a_pack_is_shown_with_everything_known_of_it() -> None:
    shown = asked("show", "builtin")

    assert shown["pack"]["contract"] == BUILTIN.contract.id
    assert shown["pack"]["operating_points"]["0.0001"] == 0.9435
    assert [one["name"] for one in shown["networks"]] == ["mtcnn", "dlib-resnet"]
    assert shown["networks"][1]["files"]["network"]["sha256"] == BUILTIN.embedder.file.sha256
    assert shown["networks"][0]["packs"] == ["builtin"]
    assert "Zhang" in call("show", "mtcnn").stdout
    assert asked("show", "mtcnn+deepface:Dlib")["pack"]["contract"] == "known once the weights are here"
    assert asked("show", "nothing", code=3)["error"]["code"] == "not_found"


def test_only_an_accepted_licence_lets_a_network_in(tmp_path: Path) -> None:
    refused = call("pull", "buffalo_l")
    assert refused.exit_code == 7
    assert "non-commercial research only" in refused.stderr
    assert asked("pull", "buffalo_l", "--accept", "MIT", code=2)["error"]["code"] == "invalid_input"
    assert not (tmp_path / "models/acceptances.json").exists()

    # The mirror is empty: the licence is written down, the download fails.
    assert asked("pull", "buffalo_l", "--accept", INSIGHTFACE, code=7)["error"]["code"] == "weights"

    accepted = json.loads((tmp_path / "models/acceptances.json").read_text())
    assert [(one["network"], one["licence"]) for one in accepted] == [
        ("scrfd-10g", INSIGHTFACE),
        ("arcface-r50", INSIGHTFACE),
    ]
    assert asked("show", "scrfd-10g")["networks"][0]["accepted"] is True


def test_commercial_use_refuses_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_MODELS__USAGE", "commercial")

    refused = asked("use", "buffalo_l", code=7)["error"]

    assert (refused["code"], refused["network"]) == ("licence", "scrfd-10g")


def test_real_weights_are_recognised_verified_and_mended(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "MobileFaceNet.onnx").write_bytes(real_weights("MobileFaceNet.onnx"))

    (placed,) = asked("import", FOLDER / "MobileFaceNet.onnx")["placed"]
    assert (placed["network"], placed["pinned"]) == ("mobilefacenet", False)
    assert {"network": "mobilefacenet", "file": "MobileFaceNet.onnx", "state": "present"} in asked("verify")["files"]

    (tmp_path / "models/weights/MobileFaceNet.onnx").write_bytes(b"damaged")
    assert asked("verify", "mobilefacenet", code=1)["files"][0]["state"] == "damaged"
    assert asked("pull", "mobilefacenet")["placed"][0]["filename"] == "MobileFaceNet.onnx"
    assert asked("pull", "mobilefacenet")["placed"] == []
    assert call("pull", "mobilefacenet").stdout.strip() == "Everything was here already."


def test_an_unpublished_digest_is_pinned_and_told(tmp_path: Path) -> None:
    (tmp_path / "resnet").write_bytes(b"weights")

    result = call("import", tmp_path / "resnet", "--as", "retinaface-resnet50")

    assert result.exit_code == 0, result.output
    assert "No source states this digest" in result.stdout
    assert asked("verify", "retinaface-resnet50")["files"][0]["state"] == "present"


def test_an_unknown_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "what").write_bytes(b"")

    assert "which is no known network's" in asked("import", tmp_path / "what", code=2)["error"]["detail"]


def test_a_pack_that_works_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked("use", "mtcnn+dlib-resnet") == {
        "pack": "builtin",
        "contract_id": "dlib-resnet-dc813b70",
        "before": "builtin",
    }
    assert json.loads((tmp_path / "models/use.json").read_text())["pack"] == "builtin"

    assert asked("use", "yunet+sface", code=7)["error"]["code"] == "weights"
    assert json.loads((tmp_path / "models/use.json").read_text())["pack"] == "builtin"
    monkeypatch.setenv("VULTUS_INFERENCE__PACK", "opencv")
    printed = call("use", "builtin").stdout
    assert "VULTUS_INFERENCE__PACK says 'opencv', and comes first" in printed
    assert "VULTUS_INFERENCE__EXTRA_PACKS=opencv" in printed
