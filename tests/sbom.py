"""Writes what an installation consists of: `make sbom`, a CycloneDX document and docs/licences.md."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, distribution, metadata
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement

from vultus import __version__
from vultus.models.catalog.entries import Network, PackagedFile
from vultus.models.catalog.packs import NETWORKS, RECOMMENDED

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/licences.md"
INTRODUCTION = """# Licences

What the default installation contains, under which terms: written by `make sbom` from the packages' own statements.
The networks' terms are those of their weights ([models](models.md)). `make sbom` also writes `report/sbom.json`, the
same with versions and digests in CycloneDX 1.6, which scanners read. Vultus itself is under Apache-2.0.

`face_recognition_models` also contains files that Vultus never reads, among them dlib's 68 landmarks, whose training
data are for research only; the image of the `Dockerfile` leaves them out ([containers](containers.md)).

| licence | packages and networks |
|---|---|
"""


def list_packages() -> Iterator[tuple[PackageMetadata, list[str]]]:
    """Yield every package of the lock that is installed here, with the SHA-256 of the files that it may be."""
    text = (ROOT / "requirements/runtime.txt").read_text().replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        words = line.split(" --hash=sha256:")
        requirement = Requirement(words[0].strip())
        if requirement.marker is None or requirement.marker.evaluate():
            yield metadata(requirement.name), [word.strip() for word in words[1:]]


def list_networks() -> list[Network]:
    """Return the networks that come with the packages, and those that the first start fetches."""
    fetched = {RECOMMENDED.detector.name, RECOMMENDED.embedder.name}
    return [
        network
        for network in NETWORKS.values()
        if network.name in fetched or all(isinstance(file, PackagedFile) for file in network.files.values())
    ]


def find_licence(package: PackageMetadata) -> str:
    """Return a package's own statement: an SPDX expression, else its classifiers, else the first line of a text."""
    stated = package.json
    listed = [str(entry).rpartition(" :: ")[2] for entry in stated.get("classifier", ()) if str(entry)[:7] == "License"]
    said = stated.get("license_expression") or ", ".join(listed) or stated.get("license")
    return str(said or distribution(package["Name"]).read_text("licenses/LICENSE")).splitlines()[0]


def describe_package(package: PackageMetadata, digests: list[str]) -> dict[str, Any]:
    """Return a component; the digests are those of its files on the index, of which one is installed."""
    name, version, licence = package["Name"], package["Version"], find_licence(package)
    is_expression = "license_expression" in package.json
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name.lower()}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower()}@{version}",
        "licenses": [{"expression": licence} if is_expression else {"license": {"name": licence}}],
        "properties": [{"name": "vultus:lock:sha256", "value": digest} for digest in digests],
    }


def describe_network(network: Network) -> dict[str, Any]:
    """Return a component with the files of its weights."""
    files = [
        {"type": "file", "name": file.filename, "hashes": [{"alg": "SHA-256", "content": file.sha256}]}
        for file in network.files.values()
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"network:{network.name}",
        "name": network.name,
        "description": f"{network.kind.value}; {network.paper}",
        "licenses": [{"license": {"name": network.licence.name}}],
        "components": files,
    }


def build_document() -> dict[str, Any]:
    """Return the CycloneDX document; the same installation has the same one."""
    parts = [describe_package(*found) for found in list_packages()] + [describe_network(one) for one in list_networks()]
    references = [part["bom-ref"] for part in parts]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, json.dumps(parts)).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "vultus",
                "name": "vultus",
                "version": __version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": "vultus", "dependsOn": references}],
    }


def render_page() -> str:
    """Return the page of licences."""
    held: dict[str, list[str]] = defaultdict(list)
    for package, _ in list_packages():
        held[find_licence(package)].append(package["Name"])
    for network in list_networks():
        held[network.licence.name].append(f"network `{network.name}`")
    rows = (f"| {licence} | {', '.join(dict.fromkeys(held[licence]))} |\n" for licence in sorted(held, key=str.lower))
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(build_document(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render_page(), encoding="utf-8")
