"""Network addresses: of callers, and of where this server may connect to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

IpAddress = IPv4Address | IPv6Address

NAT64 = IPv6Network("64:ff9b::/96")

METADATA_SERVICES = frozenset({ip_address("168.63.129.16"), ip_address("192.0.0.192")})
"""Of clouds, at addresses that are not private ones."""


def group_address(address: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 network of an IPv6 one, of which one has many.

    An IPv4 address is also recognised in the form in which a socket that listens on IPv6 gives it, `::ffff:192.0.2.1`.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed) >> 64 << 64, 64)))


def is_public(address: IpAddress) -> bool:
    """Return whether an address is one of the public Internet, whatever it is written in."""
    address = _unwrap(address)
    is_site_local = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not is_site_local and not is_special(address)


def is_special(address: IpAddress) -> bool:
    """Return whether an address means no other machine: this one, its link, a network, or what is reserved.

    So are the metadata services of clouds, and IPv6 addresses that lead to an IPv4 address by a tunnel or by a
    translation of some network's own: where, nobody here knows.
    """
    address = _unwrap(address)
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved  # in IPv6 also ::/96 and 64:ff9b:1::/48
        or address in METADATA_SERVICES
        or (isinstance(address, IPv6Address) and bool(address.sixtofour or address.teredo))
    )


def _unwrap(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 address is another notation of; every other address as it is."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
