"""`vultus models` from listing to choosing, on the installed networks and on files of this machine."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto
from tests import loopback
from tests.weights import FOLDER, real_weights
from typer.testing import CliRunner, Result

from vultus.cli.app import app
from vultus.models.catalog import packs
from vultus.models.catalog.entries import Archive, PublishedFile
from vultus.models.catalog.licences import INSIGHTFACE
from vultus.models.catalog.packs import BUILTIN, NETWORKS
from vultus.models.weights.graph_builder import GraphBuilder, TensorShape

CONTENT = b"the weights of a network"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "250")


def call(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["models", *(str(word) for word in words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def call_json(*words: object, code: int = 0) -> Any:
    return json.loads(call(*words, "--json", code=code).stdout)


def publish_files(monkeypatch: pytest.MonkeyPatch, network: str, *files: PublishedFile) -> None:
    """Give a network of the catalogue other files."""
    changed = replace(NETWORKS[network], files={file.filename: file for file in files})
    monkeypatch.setitem(NETWORKS, network, changed)


def write_file(tmp_path: Path, content: bytes = CONTENT) -> Path:
    path = tmp_path / "called differently"
    path.write_bytes(content)
    return path


def states(listed: list[dict[str, Any]]) -> dict[str, str]:
    return {row["name"]: row["weights"] for row in listed}


def test_the_list_names_every_network_with_its_licence_and_state() -> None:
    listed = call_json("list")

    assert [row["name"] for row in listed] == list(NETWORKS)
    assert (states(listed)["mtcnn"], states(listed)["yunet"]) == ("present", "absent")
    assert next(row for row in listed if row["name"] == "arcface-r50")["commercial_use"] is False
    printed = call("list").stdout
    assert "arcface-r50" in printed and "99.83" in printed and "buffalo_l" in printed
    assert "99.70" in printed and "99.7 " not in printed


def test_a_pack_is_shown_with_its_networks_and_their_files() -> None:
    mtcnn, dlib = call_json("show", "builtin")

    assert (mtcnn["name"], dlib["name"], dlib["dimension"]) == ("mtcnn", "dlib-resnet", 128)
    assert mtcnn["accepted"] == "not needed" and mtcnn["packs"] == ["builtin"]
    assert {file["sha256"] for file in dlib["files"]} == {file.sha256 for file in BUILTIN.embedder.files.values()}
    printed = call("show", "scrfd-10g").stdout
    assert "buffalo_l.zip" in printed
    assert "commercial use │ no" in printed and "None" not in printed and "False" not in printed
    assert call_json("show", "deepface:Facenet512")[0]["weights"] == "DeepFace's folder"
    assert call_json("show", "nothing", code=3)["error"]["code"] == "not_found"


def test_a_licence_is_accepted_by_name_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        publish_files(monkeypatch, "scrfd-10g", PublishedFile("w.onnx", SHA256, f"{site.url}/w.onnx"))
        refused = call_json("pull", "scrfd-10g", code=7)["error"]
        assert refused["code"] == "licence" and f"vultus models accept {INSIGHTFACE.name}" in refused["detail"]
        assert call_json("accept", "MIT", code=3)["error"]["code"] == "not_found"
        assert site.requests == []

        monkeypatch.setattr("getpass.getuser", lambda: "ada")
        accepted = call_json("accept", INSIGHTFACE.name)
        assert (accepted["licence"], accepted["by"], accepted["terms"]) == (INSIGHTFACE.name, "ada", INSIGHTFACE.terms)
        assert call_json("show", "scrfd-10g")[0]["accepted"] is True
        call("pull", "scrfd-10g")

    assert (tmp_path / "data/models/w.onnx").read_bytes() == CONTENT


def test_a_user_without_a_name_accepts_by_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)

    assert call_json("accept", INSIGHTFACE.name)["by"].startswith("uid ")


def test_commercial_use_refuses_what_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    call("accept", INSIGHTFACE.name)
    monkeypatch.setenv("VULTUS_MODELS__USAGE", "commercial")

    for command in ("pull", "use"):
        refused = call_json(command, "buffalo_l", code=7)["error"]
        assert refused["code"] == "licence" and "scrfd-10g must not be used" in refused["detail"]


def test_a_damaged_file_is_reported_and_repaired_by_another_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = tmp_path / "data/models/w.onnx"
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        publish_files(monkeypatch, "centerface", PublishedFile("w.onnx", SHA256, f"{site.url}/w.onnx"))
        assert call_json("verify", "centerface", code=1) == {"w.onnx": "absent"}
        assert call_json("pull", "centerface") == [{"file": "w.onnx", "sha256": SHA256, "pinned": False}]
        assert call_json("verify")["w.onnx"] == "present"

        placed.write_bytes(b"damaged")
        assert "damaged" in call("verify", code=1).stdout
        assert states(call_json("list"))["centerface"] == "damaged"
        assert "w.onnx verified and placed." in call("pull", "centerface").stdout
        assert "everything is here and sound" in call("pull", "centerface", "builtin").stdout

    assert placed.read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_an_unpublished_digest_is_pinned_reported_and_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_files(monkeypatch, "yunet", PublishedFile("w.onnx", None))

    builder = GraphBuilder()
    outputs: dict[str, tuple[str, TensorShape]] = {"out": (builder.add_node("Relu", "in"), (1,))}
    graph = builder.build_graph("network", {"in": (TensorProto.FLOAT, (1,))}, outputs)
    sha256 = hashlib.sha256(graph).hexdigest()

    result = call("import", write_file(tmp_path, graph), "--as", "w.onnx")

    assert f"only this one is accepted now: {sha256}" in " ".join(result.stdout.split())
    assert call_json("show", "yunet")[0]["files"][0]["sha256"] == sha256
    refused = call_json("import", write_file(tmp_path, b"another"), "--as", "w.onnx", code=7)["error"]
    assert refused["code"] == "weights" and f"not {sha256}" in refused["detail"]
    (tmp_path / "data/models/w.onnx").write_bytes(b"another")
    assert call_json("verify", "yunet", code=1) == {"w.onnx": "damaged"}


def test_an_imported_archive_provides_every_catalogued_file_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pack.zip"
    contents = {"w.onnx": CONTENT, "v.onnx": CONTENT * 2}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"pack/{name}", content)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for network, name in (("scrfd-10g", "w.onnx"), ("arcface-r50", "v.onnx")):
        source = Archive("https://publisher.invalid/pack.zip", sha256, name)
        digest = hashlib.sha256(contents[name]).hexdigest()
        publish_files(monkeypatch, network, PublishedFile(name, digest, archive=source))

    assert [one["file"] for one in call_json("import", path)] == ["w.onnx", "v.onnx"]

    assert call_json("verify", "scrfd-10g", "arcface-r50") == {"w.onnx": "present", "v.onnx": "present"}
    assert (tmp_path / "data/models/v.onnx").read_bytes() == CONTENT * 2


def test_unknown_files_are_refused(tmp_path: Path) -> None:
    unknown = call_json("import", write_file(tmp_path), code=2)["error"]["detail"]
    assert SHA256 in unknown and "--as FILENAME" in unknown
    assert call_json("import", write_file(tmp_path), "--as", "nothing.onnx", code=3)["error"]["code"] == "not_found"
    both = [write_file(tmp_path), Path(__file__)]
    assert "one file" in call_json("import", *both, "--as", "centerface.onnx", code=2)["error"]["detail"]
    wrong = call_json("import", write_file(tmp_path), "--as", "auraface_glintr100.onnx", code=7)["error"]
    assert wrong["code"] == "weights" and "a7933ea5" in wrong["detail"]


@pytest.mark.parametrize(
    ("network", "filename"), [("mobilefacenet", "MobileFaceNet.onnx"), ("yunet-n", "yunet_n_dynamic.onnx")]
)
def test_real_weights_are_recognised_by_their_digest(network: str, filename: str) -> None:
    real_weights(filename)

    (placed,) = call_json("import", FOLDER / filename)

    assert (placed["file"], placed["pinned"]) == (filename, False)
    assert call_json("verify", network) == {filename: "present"}


def test_a_pack_that_works_is_chosen_and_those_before_stay_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packs.PACKS, "twin", replace(BUILTIN, name="twin"))

    assert call_json("use", "yunet+sface", code=7)["error"]["code"] == "weights"
    assert call_json("use", "twin") == {"pack": "twin", "loaded": ["twin", "builtin"]}
    assert "Loaded at the next start: builtin, twin." in call("use", "builtin").stdout
    monkeypatch.setenv("VULTUS_INFERENCE__PACK", "twin")
    assert "VULTUS_INFERENCE__PACK is set and goes before" in call("use", "builtin").stderr


def test_what_cannot_be_read_or_written_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/models").mkdir(parents=True)
    (tmp_path / "data/models/records.json").write_text("{")
    for line in (f"accept {INSIGHTFACE.name}", "show scrfd-10g", "pull scrfd-10g"):
        assert "records.json cannot be read" in call_json(*line.split(), code=7)["error"]["detail"]

    monkeypatch.setenv("VULTUS_DATA_DIR", str(Path(__file__) / "data"))
    for line in ("list", "pull yunet", "verify", "use opencv", f"accept {INSIGHTFACE.name}"):
        assert "VULTUS_DATA_DIR" in call_json(*line.split(), code=7)["error"]["detail"]
