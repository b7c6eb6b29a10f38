"""Downloads are complete or absent, over connections that break and servers that differ."""

from __future__ import annotations

import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest
from tests import loopback

from vultus.errors import DownloadError, WeightsError
from vultus.models.catalog.entries import Archive, PublishedFile
from vultus.models.weights import download
from vultus.models.weights.download import Downloader, open_archive_member
from vultus.models.weights.store import FileState, WeightsStore

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "models")


def at(site: loopback.Site, path: str = "/w.onnx", sha256: str | None = SHA256) -> PublishedFile:
    return PublishedFile("w.onnx", sha256, f"{site.url}{path}")


def pull(store: WeightsStore, file: PublishedFile, **settings: Any) -> str:
    (digest,) = Downloader(store, timeout_s=5, **settings).fetch_weights(file)
    return digest


def cut_off(store: WeightsStore, site: loopback.Site, sha256: str | None = SHA256) -> None:
    site.cut_after = HALF
    with pytest.raises(DownloadError, match=rf"ended after {HALF:,} of {len(CONTENT):,} bytes.*pull again"):
        pull(store, at(site, sha256=sha256))


def left_in(store: WeightsStore) -> list[str]:
    assert store.models_dir is not None
    return sorted(path.name for path in store.models_dir.iterdir() if path.suffix != ".lock")


def test_a_file_is_placed_and_its_progress_reported(store: WeightsStore) -> None:
    reports: list[tuple[str, int, int | None]] = []
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        assert pull(store, at(site), progress=lambda *report: reports.append(report)) == SHA256

        assert store.read_weights(at(site)) == CONTENT
        assert store.get_file_state(at(site)) is FileState.PRESENT
    assert reports[-1] == ("w.onnx", len(CONTENT), len(CONTENT))
    assert left_in(store) == ["w.onnx"]


def test_the_next_pull_resumes_where_a_connection_was_cut(store: WeightsStore) -> None:
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        cut_off(store, site)
        pull(store, at(site))

        assert store.read_weights(at(site)) == CONTENT
    assert site.requests == [("/w.onnx", None), ("/w.onnx", f"bytes={HALF}-")]
    assert left_in(store) == ["w.onnx"]


@pytest.mark.parametrize(
    ("site_has", "sent_range"),
    [({"ranges": False}, f"bytes={HALF}-"), ({"etag": None}, None), ({"etag": 'W/"weak"'}, None)],
)
def test_without_ranges_or_a_strong_tag_the_file_is_downloaded_again(
    store: WeightsStore, site_has: dict[str, Any], sent_range: str | None
) -> None:
    with loopback.serve(files={"/w.onnx": CONTENT}, **site_has) as site:
        cut_off(store, site)
        pull(store, at(site))

        assert store.read_weights(at(site)) == CONTENT
    assert site.requests[1] == ("/w.onnx", sent_range)


def test_a_file_that_changed_meanwhile_is_not_patched_together(store: WeightsStore) -> None:
    with loopback.serve(files={"/w.onnx": b"old!" * (len(CONTENT) // 4)}) as site:
        cut_off(store, site)
        site.files["/w.onnx"], site.etag = CONTENT, '"two"'
        pull(store, at(site))

        assert store.read_weights(at(site)) == CONTENT


def test_a_tag_of_an_earlier_file_is_deleted_with_it(store: WeightsStore) -> None:
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        cut_off(store, site)
        site.etag = None
        cut_off(store, site)
        site.etag = '"one"'
        pull(store, at(site))

    assert site.requests[-1] == ("/w.onnx", None)


def test_a_part_that_is_already_complete_is_accepted(store: WeightsStore) -> None:
    """The process was killed after the last byte: the server has no range after it and returns 416."""
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        cut_off(store, site)
        assert store.models_dir is not None
        (store.models_dir / ".w.onnx.part").write_bytes(CONTENT)
        pull(store, at(site))

        assert store.read_weights(at(site)) == CONTENT
    assert site.requests[1:] == [("/w.onnx", f"bytes={len(CONTENT)}-"), ("/w.onnx", None)]


def test_a_part_that_was_not_requested_is_refused_and_the_next_pull_restarts(store: WeightsStore) -> None:
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        cut_off(store, site)
        site.shift = 7
        with pytest.raises(DownloadError, match="another part than asked for"):
            pull(store, at(site))
        pull(store, at(site))

        assert store.read_weights(at(site)) == CONTENT


def test_a_wrong_digest_is_refused_and_the_file_deleted(store: WeightsStore) -> None:
    found = hashlib.sha256(b"something else").hexdigest()
    with loopback.serve(files={"/w.onnx": b"something else"}) as site:
        with pytest.raises(WeightsError, match=f"SHA-256 is {found}, not {SHA256}.*nothing was placed"):
            pull(store, at(site))

        assert left_in(store) == []
        site.files["/w.onnx"] = CONTENT
        pull(store, at(site))
    assert [sent for _, sent in site.requests] == [None, None]


def test_redirects_are_followed_but_only_to_web_addresses(store: WeightsStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with loopback.serve(files={"/w.onnx": CONTENT}) as site:
        site.redirects = {"/moved": f"{site.url}/w.onnx", "/trap": (tmp_path / "secret").as_uri()}
        with pytest.raises(DownloadError, match=r"answered 302 .*secret' is not allowed"):
            pull(store, at(site, "/trap"))
        site.redirects["/trap"] = site.url.replace("http", "ftp")
        with pytest.raises(DownloadError, match="answered 302 and leads from http to ftp, which is not followed"):
            pull(store, at(site, "/trap"))
        assert left_in(store) == []

        pull(store, at(site, "/moved"))
        assert store.read_weights(at(site)) == CONTENT


def test_an_encrypted_address_never_leads_to_a_plain_one() -> None:
    def led(source: str, target: str) -> Request | None:
        return download._SafeRedirectHandler().redirect_request(
            Request(f"{source}://here/w"), None, 302, "", {}, target
        )

    with pytest.raises(OSError, match="leads from https to http"):
        led("https", "http://there/w")
    with pytest.raises(OSError, match="leads from https to ftp"):
        led("https", "ftp://there/w")
    for source, target in (("https", "https://there/w"), ("http", "https://there/w"), ("http", "http://there/w")):
        followed = led(source, target)
        assert followed is not None
        assert followed.full_url == target


def test_more_than_any_weights_have_is_not_read(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_WEIGHTS_BYTES", 100)
    with (
        loopback.serve(files={"/w.onnx": CONTENT}) as site,
        pytest.raises(DownloadError, match="more than 100 bytes"),
    ):
        pull(store, at(site))

    assert ".w.onnx.part" not in left_in(store)


def test_the_proxy_of_the_environment_is_used_except_for_named_hosts(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback.serve(files={"/w.onnx": CONTENT}) as site, loopback.proxy() as (address, proxied):
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("NO_PROXY", "")
        pull(store, at(site))
        assert proxied == [f"{site.url}/w.onnx"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert store.models_dir is not None
        (store.models_dir / "w.onnx").unlink()
        pull(store, at(site))

    assert len(proxied) == 1
    assert len(site.requests) == 2


def test_a_mirror_is_requested_with_the_publishers_names(store: WeightsStore, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"v.onnx": CONTENT * 2}, member="v.onnx")
    plain = PublishedFile("w.onnx", SHA256, "https://publisher.invalid/deep/w.onnx")
    packed = PublishedFile("v.onnx", hashlib.sha256(CONTENT * 2).hexdigest(), archive=archive)
    files = {"/m/w.onnx": CONTENT, "/m/a.zip": (tmp_path / "a.zip").read_bytes()}
    with loopback.serve(files=files) as site:
        for file in (plain, packed):
            pull(store, file, mirror=f"{site.url}/m/")

    assert [path for path, _ in site.requests] == ["/m/w.onnx", "/m/a.zip"]
    assert left_in(store) == ["v.onnx", "w.onnx"]


@pytest.mark.parametrize("mirror", ["file:///somewhere", "weights"])
def test_a_mirror_that_is_no_web_address_is_refused(store: WeightsStore, mirror: str) -> None:
    with pytest.raises(DownloadError, match="no http or https address; check VULTUS_MODELS__MIRROR"):
        pull(store, PublishedFile("w.onnx", SHA256, "https://publisher.invalid/w.onnx"), mirror=mirror)


def test_servers_that_refuse_or_do_not_respond_are_reported(store: WeightsStore) -> None:
    with loopback.serve(status=404) as site, pytest.raises(DownloadError, match=r"/w\.onnx answered 404"):
        pull(store, at(site))
    with pytest.raises(DownloadError, match=r"could not be fetched: .*HTTPS_PROXY.*vultus models import"):
        pull(store, at(site))  # closed already


def test_an_unpublished_file_is_refused_with_how_to_import_it(store: WeightsStore) -> None:
    with pytest.raises(DownloadError, match=r"vultus models import FILE --as w\.onnx"):
        pull(store, PublishedFile("w.onnx", None))


def test_a_models_folder_that_is_no_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = PublishedFile("w.onnx", SHA256, "https://publisher.invalid/w.onnx")

    with pytest.raises(WeightsError, match=r"file cannot be made: .*Set VULTUS_MODELS__DIR"):
        pull(WeightsStore(tmp_path / "file"), file)
    with pytest.raises(WeightsError, match="no models folder"):
        pull(WeightsStore(), file)


def test_concurrent_pulls_are_serialized(tmp_path: Path) -> None:
    content = os.urandom(2**21)
    with loopback.serve(files={"/w.onnx": content}) as site:
        file = at(site, sha256=hashlib.sha256(content).hexdigest())
        stores = [WeightsStore(tmp_path / "models") for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            digests = set(threads.map(lambda store: pull(store, file), stores))

    assert digests == {file.sha256}
    assert stores[0].read_weights(file) == content
    assert len(site.requests) == 1
    assert left_in(stores[0]) == ["w.onnx"]


def zipped(path: Path, members: dict[str, bytes], *, member: str = "w.onnx") -> Archive:
    """Write an archive and return its catalogue entry."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Archive("https://publisher.invalid/a.zip", hashlib.sha256(path.read_bytes()).hexdigest(), member)


def pull_archive(
    store: WeightsStore, folder: Path, members: dict[str, bytes], *, archive_sha256: str | None = None
) -> PublishedFile:
    archive = zipped(folder / "a.zip", members)
    with loopback.serve(files={"/a.zip": (folder / "a.zip").read_bytes()}) as site:
        source = Archive(f"{site.url}/a.zip", archive_sha256 or archive.sha256, "w.onnx")
        file = PublishedFile("w.onnx", SHA256, archive=source)
        pull(store, file)
    return file


def test_weights_are_taken_out_of_an_archive_by_the_last_part_of_their_name(
    store: WeightsStore, tmp_path: Path
) -> None:
    file = pull_archive(store, tmp_path, {"pack/": b"", "pack/w.onnx": CONTENT, "pack/other.onnx": b"other"})

    assert store.read_weights(file) == CONTENT
    assert left_in(store) == ["w.onnx"]


@pytest.mark.parametrize(
    ("members", "archive_sha256", "words"),
    [
        ({"w.onnx": CONTENT}, "0" * 64, r"a\.zip was refused: its SHA-256 is .*, not 0000"),
        ({"w.onnx": b"other weights"}, None, rf"w\.onnx was refused: its SHA-256 is .*, not {SHA256}"),
        ({"other.onnx": CONTENT}, None, r"not hold one file w\.onnx"),
        ({"w.onnx": CONTENT, "b/w.onnx": CONTENT}, None, r"not hold one file w\.onnx"),
    ],
)
def test_an_archive_that_is_not_the_expected_one_leaves_nothing(
    store: WeightsStore, tmp_path: Path, members: dict[str, bytes], archive_sha256: str | None, words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        pull_archive(store, tmp_path, members, archive_sha256=archive_sha256)

    assert left_in(store) == []


def test_an_archive_never_decides_where_anything_is_written(store: WeightsStore, tmp_path: Path) -> None:
    file = pull_archive(store, tmp_path, {"../../w.onnx": CONTENT, "../../evil": b"evil", "/tmp/evil": b"evil"})

    assert store.read_weights(file) == CONTENT
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"a.zip", ".a.zip.lock", "w.onnx"}


def test_a_member_larger_than_any_weights_and_what_is_no_archive_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "a.zip", {"w.onnx": bytes(1000)})
    monkeypatch.setattr(download, "MAX_WEIGHTS_BYTES", 999)

    for path, words in ((tmp_path / "a.zip", "believable size"), (Path(__file__), "no zip file")):
        with pytest.raises(WeightsError, match=words), open_archive_member(path, "w.onnx", tmp_path):
            pytest.fail("it was unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
