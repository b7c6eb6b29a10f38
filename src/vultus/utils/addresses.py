"""Network addresses of callers."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network


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
