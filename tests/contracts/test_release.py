"""The release: one version said everywhere, what it consists of, and files that the tools of others accept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.badges import draw_coverage, draw_tests
from tests.sbom import PAGE, build_document, render_page
from vultus import __version__

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
COMPOSE = sorted(ROOT.glob("compose*.yaml"))
UNIT = ROOT / "deploy/vultus.service"
SCHEMAS = {
    "vendor.compose-spec": ["compose.yaml", "compose.postgres.yaml"],
    "vendor.github-workflows": [".github/workflows/ci.yml"],
    "custom.github-workflows-require-timeout": [".github/workflows/ci.yml"],
    "vendor.github-issue-forms": [".github/ISSUE_TEMPLATE/defect.yml", ".github/ISSUE_TEMPLATE/wish.yml"],
    "vendor.github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.dependabot": [".github/dependabot.yml"],
    "vendor.citation-file-format": ["CITATION.cff"],
}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def read_documents(paths: list[Path]) -> list[dict[str, Any]]:
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def find_containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])  # type: ignore[no-any-return]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest, date = re.findall(r"^## (\S+) \((.+)\)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    texts = [path.read_text() for path in (*MANIFESTS, *COMPOSE)]
    images = {tag for text in texts for tag in re.findall(r"\bvultus:(\d[\w.]+)", text)}
    label = re.search(r'image\.version="(.+?)"', (ROOT / "Dockerfile").read_text())

    assert label
    assert {project, newest, cited["version"], label[1], *images} == {__version__}
    assert str(cited["date-released"]) == date


def test_the_parts_list_is_of_its_schema_and_names_packages_and_networks() -> None:
    document = build_document()

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    kinds = {part["name"]: part["type"] for part in document["components"]}
    assert kinds["fastapi"] == "library"
    assert {name for name, kind in kinds.items() if kind[:7] == "machine"} == {"mtcnn", "dlib-resnet", "yunet", "sface"}


def test_the_page_of_licences_is_the_current_one() -> None:
    assert PAGE.read_text() == render_page(), "packages changed: run `make sbom`, read the difference, commit the page"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_for_others_are_of_their_schemas(schema: str) -> None:
    validator = jsonschema_rs.validator_for(get_builtin_schema(schema))
    documents = {
        file: json.loads(json.dumps(yaml.safe_load((ROOT / file).read_text()), default=str)) for file in SCHEMAS[schema]
    }

    assert {file: error.message for file, one in documents.items() for error in validator.iter_errors(one)} == {}


def test_manifests_are_valid_and_their_containers_shut_in() -> None:
    for document in read_documents(MANIFESTS):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)

    containers = [one for document in read_documents(MANIFESTS) for one in find_containers(document)]
    assert len(containers) == 3
    for container in containers:
        security = container["securityContext"]
        assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_composed_containers_are_shut_in_and_get_no_secret_by_the_environment() -> None:
    services = {name: value for one in read_documents(COMPOSE) for name, value in one["services"].items()}
    services["vultus"] |= read_documents([ROOT / "compose.yaml"])[0]["services"]["vultus"]

    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        secrets = {key for key in service.get("environment", {}) if "PASSWORD" in key and not key.endswith("_FILE")}
        assert secrets == set(), name


def test_actions_are_pinned_and_may_only_read() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]

    assert workflow["permissions"] == {"contents": "read"}
    assert [action for action in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action)] == []


def test_the_image_description_has_no_finding() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent.as_posix())
    if hadolint is None:
        pytest.skip("hadolint has no package for this machine")
    checked = run(hadolint, "Dockerfile")

    assert checked.stdout == ""


def test_the_unit_is_understood_and_shut_in(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/vultus/.venv/bin/vultus", "/bin/true"))

    verified = run(analyze, "verify", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    judged = run(analyze, "security", "--offline=true", "--threshold=20", unit)
    assert judged.returncode == 0, judged.stdout


def test_badges_tell_what_a_run_said() -> None:
    run_log = "==== 900 passed in 20.1s ====\n..\n==== 1 failed, 2999 passed, 4 skipped in 600.52s (0:10:00) ====\n"

    assert "tests: 1 failed" in draw_tests(run_log)
    assert "tests: 2999 passed" in draw_tests(run_log.replace("1 failed, ", ""))
    assert "tests: not run" in draw_tests("make: *** [check] Error 1")
    assert "coverage: 97 %" in draw_coverage('{"totals": {"percent_covered": 97.99}}')
