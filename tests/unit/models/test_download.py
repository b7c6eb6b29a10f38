"""Downloads arrive whole or not at all, over connections that break and servers that differ."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import Request

import pytest
from tests import loopback

from vultus.errors import WeightsError
from vultus.models import download as module
from vultus.models.download import download

CONTENT = bytes(range(256)) * 40
HALF = len(CONTENT) // 2


@pytest.fixture(autouse=True)
def direct_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "PAUSE_S", 0)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".weights.part"


def fetch(url: str, part: Path, *, limit: int = 10**6) -> list[tuple[int, int | None]]:
    told: list[tuple[int, int | None]] = []
    download(url, part, limit=limit, timeout_s=5, progress=lambda here, total: told.append((here, total)))
    return told


def test_a_file_arrives_and_its_progress_is_told(part: Path) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site:
        told = fetch(f"{site.url}/w", part)

    assert part.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_a_cut_connection_is_taken_up_where_it_ended(part: Path) -> None:
    with loopback.serve(files={"/w": CONTENT}, cut_after=HALF) as site:
        fetch(f"{site.url}/w", part)

    assert part.read_bytes() == CONTENT
    assert site.asked == [("/w", None), ("/w", f"bytes={HALF}-")]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with loopback.serve(files={"/w": CONTENT}, cut_after=HALF) as site:
        with pytest.raises(WeightsError, match=rf"ended after {HALF} of {len(CONTENT)} bytes"):
            fetch(f"{site.url}/w", part)
        fetch(f"{site.url}/w", part)

    assert part.read_bytes() == CONTENT
    assert site.asked[-1] == ("/w", f"bytes={HALF}-")


@pytest.mark.parametrize("site_has", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_without_ranges_or_a_strong_tag_the_file_is_fetched_anew(part: Path, site_has: dict[str, object]) -> None:
    with loopback.serve(files={"/w": CONTENT}, cut_after=HALF, **site_has) as site:
        fetch(f"{site.url}/w", part)

    assert part.read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_a_file_that_changed_meanwhile_is_not_patched_together(part: Path) -> None:
    part.write_bytes(b"old" * 100)
    part.with_suffix(".part.json").write_text(json.dumps({"url": "other", "etag": '"old"'}))
    with loopback.serve(files={"/w": CONTENT}) as site:
        part.with_suffix(".part.json").write_text(json.dumps({"url": f"{site.url}/w", "etag": '"old"'}))
        fetch(f"{site.url}/w", part)

    assert part.read_bytes() == CONTENT


def test_redirects_are_followed_but_not_to_a_file(part: Path) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site:
        site.redirects = {"/moved": f"{site.url}/w", "/trap": "file:///etc/hostname"}
        fetch(f"{site.url}/moved", part)
        assert part.read_bytes() == CONTENT
        with pytest.raises(WeightsError, match="cannot be downloaded"):
            fetch(f"{site.url}/trap", part.with_name("other"))

    assert not part.with_name("other").exists()


def test_an_encrypted_address_never_leads_to_a_plain_one() -> None:
    with pytest.raises(OSError, match="redirected to http, which is not followed"):
        module._Redirects().redirect_request(
            Request("https://example.invalid/w"), None, 302, "", {}, "http://example.invalid/w"
        )


@pytest.mark.parametrize(("status", "times"), [(404, 1), (503, module.ATTEMPTS)])
def test_only_what_may_pass_is_tried_again(part: Path, status: int, times: int) -> None:
    words = rf"/w cannot be downloaded: HTTP Error {status}.*models import"
    with loopback.serve(status=status) as site, pytest.raises(WeightsError, match=words):
        fetch(f"{site.url}/w", part)

    assert len(site.asked) == times


def test_more_than_the_limit_is_not_read(part: Path) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site, pytest.raises(WeightsError, match="more than 100 bytes"):
        fetch(f"{site.url}/w", part, limit=100)

    assert not part.exists()


def test_the_proxy_of_the_environment_is_used_except_for_named_hosts(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site, loopback.proxy() as (address, asked):
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("NO_PROXY", "")
        fetch(f"{site.url}/w", part)
        assert asked == [f"{site.url}/w"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        fetch(f"{site.url}/w", part)

    assert len(asked) == 1
    assert len(site.asked) == 2


def test_files_of_this_machine_have_addresses_too(tmp_path: Path, part: Path) -> None:
    (tmp_path / "w").write_bytes(CONTENT)

    fetch((tmp_path / "w").as_uri(), part)

    assert part.read_bytes() == CONTENT
    with pytest.raises(WeightsError, match="No such file"):
        fetch((tmp_path / "nothing").as_uri(), part)
    with pytest.raises(WeightsError, match="no http, https or file address"):
        fetch("ftp://example.invalid/w", part)
