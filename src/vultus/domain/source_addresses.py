"""Where sources are, cameras and videos that are watched without a browser, and which of them may be opened."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import PurePosixPath
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from vultus.errors import InvalidInputError
from vultus.utils.addresses import IpAddress, is_special

MAX_ADDRESS_LENGTH = 2000
DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_DEVICES = "/dev/"

_VALUE = re.compile(r"(=|%3D)[^/&;]*", re.IGNORECASE)
"""A value inside a path: some cameras take user and password there."""

_PRINTABLE = "".join(map(chr, range(33, 127)))

FORMS = "rtsp://…, rtsps://…, http://…, https://…, the path of a file, or of a camera such as /dev/video0"
ESCAPES = "Write / ? # @ in a user name or password as %2F %3F %23 %40, and @ in a path as %40."


class SourceKind(StrEnum):
    """How a source is reached."""

    RTSP = "rtsp"
    HTTP = "http"  # MJPEG, HLS
    FILE = "file"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """Where a source is.

    Attributes:
        kind: How it is reached.
        host: Name or address; empty for files and devices.
        port: TCP port; 0 for files and devices.
        location: URL without user and password, or path. Cameras take passwords in paths and queries too, so it is as
            secret as these.
        userinfo: `user:password` as the URL had it, percent-encoded; empty without.
    """

    kind: SourceKind
    host: str
    port: int
    location: str = field(repr=False)
    userinfo: str = field(default="", repr=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse an address as people write it.

        Raises:
            InvalidInputError: It is none; no part of it is repeated.
        """
        if not 0 < len(text) <= MAX_ADDRESS_LENGTH or not text.isprintable():
            raise InvalidInputError(f"address must be {FORMS}, in at most {MAX_ADDRESS_LENGTH:,} characters.")
        if text.startswith("/"):
            if ".." in PurePosixPath(text).parts:
                raise InvalidInputError("address must be a path without '..'.")
            return cls(SourceKind.DEVICE if text.startswith(_DEVICES) else SourceKind.FILE, "", 0, text)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise InvalidInputError(f"address is not a URL; write {FORMS}. {ESCAPES}") from None
        scheme = parts.scheme.lower()
        if scheme not in DEFAULT_PORTS or not parts.hostname or " " in text:
            raise InvalidInputError(f"address must be {FORMS}.")
        if "@" in parts.path + parts.query + parts.fragment:  # the end of a password, which would be shown
            raise InvalidInputError(f"address has an @ after its host. {ESCAPES}")
        userinfo, _, netloc = parts.netloc.rpartition("@")
        path, query = quote(parts.path, safe=_PRINTABLE), quote(parts.query, safe=_PRINTABLE)
        location = parts._replace(scheme=scheme, netloc=netloc, path=path, query=query, fragment="").geturl()
        kind = SourceKind.RTSP if scheme.startswith("rtsp") else SourceKind.HTTP
        return cls(kind, parts.hostname, port or DEFAULT_PORTS[scheme], location, userinfo)

    @property
    def text(self) -> str:
        """The whole address with user and password."""
        if not self.userinfo:
            return self.location
        scheme, _, rest = self.location.partition("://")
        return f"{scheme}://{self.userinfo}@{rest}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User name and password; None without."""
        if not self.userinfo:
            return None
        user, _, password = self.userinfo.partition(":")
        return unquote(user), unquote(password)

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is to be of TLS."""
        return self.location.startswith(("rtsps:", "https:"))

    @property
    def label(self) -> str:
        """The address as it may be shown: without user, password, query, or values inside the path."""
        if self.kind in {SourceKind.FILE, SourceKind.DEVICE}:
            return self.location
        parts = urlsplit(self.location)
        path = _VALUE.sub(r"\1…", parts.path)
        return f"{parts.scheme}://{parts.netloc}{path}{'?…' if parts.query else ''}"


@dataclass(frozen=True, slots=True)
class AllowedSources:
    """The addresses that may be opened: the operator's list.

    Attributes:
        entries: Addresses, networks, host names (`*.` for all below a domain), and absolute paths of folders, files or
            devices.
    """

    entries: tuple[str, ...] = ()

    @classmethod
    def from_address(cls, address: SourceAddress) -> Self:
        """Return what the operator allows by typing an address: its host or file, and nothing else."""
        if not address.host:
            return cls((address.location,))
        return cls((address.host, "127.0.0.0/8", "::1") if address.host == "localhost" else (address.host,))

    def permits_host(self, host: str, address: IpAddress) -> bool:
        """Return whether a host may be connected to at an address that its name was resolved to.

        A name alone permits no address of this machine, and none that means a network or is reserved: whoever can
        change the name's records could otherwise lead there.
        """
        address = getattr(address, "ipv4_mapped", None) or address
        if any(address in network for network in self._networks if network.version == address.version):
            return True
        return not is_special(address) and self.names_host(host)

    def names_host(self, host: str) -> bool:
        """Return whether a host name is on the list."""
        host = host.lower().rstrip(".")
        return any(
            host == entry or (entry.startswith("*.") and host.endswith(entry[1:]))
            for entry in map(str.lower, self.entries)
            if not entry.startswith("/")
        )

    def permits_path(self, path: str) -> bool:
        """Return whether a file or device may be opened.

        Args:
            path: Absolute, without links.
        """
        return any(PurePosixPath(path).is_relative_to(entry) for entry in self.entries if entry.startswith("/"))

    def may_permit(self, address: SourceAddress) -> bool:
        """Return whether an address may be permitted, as far as it can be told before its name is resolved."""
        if not address.host:
            return self.permits_path(address.location)
        try:
            return self.permits_host(address.host, ip_address(address.host))
        except ValueError:
            return self.names_host(address.host) or bool(self._networks)

    @property
    def _networks(self) -> list[IPv4Network | IPv6Network]:
        found = []
        for entry in self.entries:
            if not entry.startswith("/"):
                with suppress(ValueError):
                    found.append(ip_network(entry, strict=False))
        return found
