"""The rows of the catalogue are complete and consistent; what they state is what the publishers state."""

from __future__ import annotations

import re

import pytest

from vultus.models.catalog.entries import DownloadedFile, Network
from vultus.models.catalog.packs import NETWORKS, network_named
from vultus.models.catalog.templates import TEMPLATES

ROWS = [*NETWORKS.values(), network_named("deepface:Facenet512")]
NOT_COMMERCIAL = {
    "scrfd-500m",
    "scrfd-2.5g",
    "scrfd-10g",
    "arcface-r50",
    "arcface-mbf",
    "arcface-r100",
    "facenet",
    "facenet512",
    "facenet128",
    "adaface-r18",
    "adaface-r101",
    "deepface:Facenet512",
}


@pytest.mark.parametrize("network", ROWS, ids=lambda network: network.name)
def test_every_network_says_whose_it_is_what_it_takes_and_what_one_may_do(network: Network) -> None:
    assert re.search(r"\((19|20)\d\d\), \".+\"", network.paper)
    assert network.inputs
    assert network.licence.name and network.licence.terms.endswith(".")
    assert network.licence.url.startswith("https://")
    assert all(0 < figure <= 100 for figure in network.published.values())
    if network.kind == "embedder" and network.family != "deepface":
        assert network.dimension in {128, 512}
        assert network.crop in TEMPLATES
        assert network.steps


@pytest.mark.parametrize("network", ROWS, ids=lambda network: network.name)
def test_what_may_not_be_used_commercially_must_be_accepted(network: Network) -> None:
    assert network.licence.commercial_use == (network.name not in NOT_COMMERCIAL)
    assert network.licence.must_be_accepted == (network.name in NOT_COMMERCIAL)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=lambda network: network.name)
def test_files_have_digests_and_encrypted_addresses(network: Network) -> None:
    assert network.files
    for file in network.files.values():
        digests = [file.sha256]
        if isinstance(file, DownloadedFile):
            digests += [file.archive.sha256] if file.archive else []
            addresses = [file.url, file.archive.url if file.archive else None]
            assert all(address.startswith("https://") for address in addresses if address)
            assert re.fullmatch(r"[\w.-]+", file.filename)
            assert not (file.url and file.archive)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests if digest)


def test_no_two_networks_share_a_file_or_a_name() -> None:
    files = [file for network in NETWORKS.values() for file in network.files.values()]
    names = [file.filename for file in files if isinstance(file, DownloadedFile)]
    digests = [file.sha256 for file in files if file.sha256]

    assert len(set(names)) == len(names)
    assert len(set(digests)) == len(digests)
