"""From where a caller comes, and from where a key may be sent."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def read_network(text: str) -> Network:
    """The network of `203.0.113.0/24`, or of a single address.

    Raises:
        ValueError: it is neither, or says more of an address than the network has.
    """
    return ip_network(text)


def read_address(text: str | None) -> Address | None:
    """The address that a server has seen, an IPv4 one in the place of IPv6 as that; `None` for what is none."""
    try:
        address = ip_address(text or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_within(text: str | None, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; what is no address is in none."""
    address = read_address(text)
    return address is not None and any(address in network for network in networks)
