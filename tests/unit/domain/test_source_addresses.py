"""Which addresses of sources are allowed, and what of an address is shown."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vultus.domain.source_addresses import AllowedSources, SourceAddress
from vultus.errors import InvalidInputError


@pytest.mark.parametrize(
    ("entry", "host", "address", "is_permitted"),
    [
        ("192.168.7.0/24", "cam", "192.168.7.20", True),
        ("192.168.7.0/24", "cam", "192.168.8.20", False),
        ("192.168.7.0/24", "cam", "::ffff:192.168.7.20", True),
        ("192.168.7.20", "192.168.7.20", "192.168.7.20", True),
        ("cam.example.org", "CAM.example.org.", "10.1.2.3", True),
        ("cam.example.org", "evil.example.org", "10.1.2.3", False),
        ("*.example.org", "a.b.example.org", "10.1.2.3", True),
        ("*.example.org", "example.org", "10.1.2.3", False),
        ("*.example.org", "badexample.org", "10.1.2.3", False),
        ("cam.example.org", "cam.example.org", "127.0.0.1", False),  # whoever changes its records leads nowhere here
        ("cam.example.org", "cam.example.org", "::ffff:127.0.0.1", False),
        ("cam.example.org", "cam.example.org", "169.254.169.254", False),
        ("cam.example.org", "cam.example.org", "0.0.0.0", False),
        ("cam.example.org", "cam.example.org", "224.0.0.1", False),
        ("cam.example.org", "cam.example.org", "::1", False),
        ("cam.example.org", "cam.example.org", "fe80::1", False),
        ("cam.example.org", "cam.example.org", "fc00::20", True),
        ("cam.example.org", "cam.example.org", "64:ff9b::93.184.216.34", True),
        ("cam.example.org", "cam.example.org", "64:ff9b::169.254.169.254", False),
        ("cam.example.org", "cam.example.org", "64:ff9b:1::7f00:1", False),
        ("cam.example.org", "cam.example.org", "::127.0.0.1", False),
        ("cam.example.org", "cam.example.org", "2002:7f00:1::1", False),
        ("cam.example.org", "cam.example.org", "168.63.129.16", False),  # a cloud's metadata
        ("127.0.0.0/8", "localhost", "127.0.0.1", True),
        ("/srv/videos", "srv", "10.0.0.1", False),
    ],
)
def test_an_address_is_permitted_by_network_or_by_name(entry: str, host: str, address: str, is_permitted: bool) -> None:
    assert AllowedSources((entry,)).permits_host(host, ip_address(address)) is is_permitted


@pytest.mark.parametrize(
    ("path", "is_permitted"),
    [("/srv/videos/a.mp4", True), ("/srv/videos", True), ("/srv/videos2/a.mp4", False), ("/srv", False)],
)
def test_a_path_is_permitted_inside_its_folder(path: str, is_permitted: bool) -> None:
    assert AllowedSources(("/srv/videos", "192.168.7.0/24")).permits_path(path) is is_permitted


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("rtsp://admin:geheim@cam.lan/live?token=geheim", "rtsp://cam.lan/live?…"),
        ("rtsp://cam.lan:8554/user=admin&password=geheim/1.sdp", "rtsp://cam.lan:8554/user=…&password=…/1.sdp"),
        ("HTTPS://a:geheim:b@[2001:db8::1]/x#geheim", "https://[2001:db8::1]/x"),
        ("rtsp://cam.lan/user%3Dadmin%26password%3dgeheim/1", "rtsp://cam.lan/user%3D…/1"),
        ("http://cam.lan/tür?läuft=geheim", "http://cam.lan/t%C3%BCr?…"),
        ("/srv/videos/door.mp4", "/srv/videos/door.mp4"),
        ("/srv/my videos/front door.mp4", "/srv/my videos/front door.mp4"),
    ],
)
def test_what_is_shown_of_an_address_has_no_secret(text: str, label: str) -> None:
    address = SourceAddress.from_text(text)

    assert address.label == label
    assert "geheim" not in repr(address)
    assert SourceAddress.from_text(address.text) == address


@pytest.mark.parametrize("password", ["12/geheim", "12?geheim", "12#geheim"])
def test_a_password_that_ends_the_host_is_no_path(password: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        SourceAddress.from_text(f"rtsp://admin:{password}@cam.lan/live")

    assert "%2F" in raised.value.detail
    assert "geheim" not in raised.value.detail
