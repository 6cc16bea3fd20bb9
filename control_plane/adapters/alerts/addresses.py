"""Which addresses nobody may be sent to: what a name stands for decides, not how it is written.

Whoever may set a destination could otherwise make the control plane knock at doors only it can reach: databases in its
network, the metadata service that hands out its credentials, itself.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from control_plane.app.delivery import Undelivered

METADATA = frozenset(
    ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    )
)
"""Where clouds hand out credentials to whoever asks from inside; never allowed."""

NOT_PUBLIC = tuple(
    ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "3fff::/20", "64:ff9b:1::/48", "::ffff:0:0:0/96")
)
"""Which Python takes for public, or did in one of its versions: special, site-local, examples, translated."""

NAT64 = IPv6Network("64:ff9b::/96")
COMPATIBLE = IPv6Network("::/96")
"""Networks whose last four bytes are an IPv4 address."""


def embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one leads to, if it does; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    if address.teredo is not None:
        return address.teredo[1]
    if (address in NAT64 or address in COMPATIBLE) and int(address) & 0xFFFFFFFF > 1:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def fault_of(text: str, *, allow_private: bool) -> str:
    """Why nothing may be sent to an address; empty if it may.

    >>> fault_of("127.0.0.1", allow_private=False), fault_of("::ffff:10.0.0.1", allow_private=False)
    ('is on this machine', 'is in a private network')
    >>> fault_of("93.184.216.34", allow_private=False), fault_of("169.254.169.254", allow_private=True)
    ('', 'hands out credentials of this machine')
    """
    written = ip_address(text.partition("%")[0])
    address = embedded(written)
    if address in METADATA or written in METADATA:
        return "hands out credentials of this machine"
    if address.is_multicast or written.is_multicast:
        return "is a multicast address"
    if allow_private:
        return ""
    if address.is_loopback or address.is_unspecified:
        return "is on this machine"
    if address.is_link_local:
        return "is link-local"
    if any(one.version == network.version and one in network for one in (address, written) for network in NOT_PUBLIC):
        return "is no public address"
    if not address.is_global or not written.is_global or address.is_reserved:
        return "is in a private network" if address.is_private else "is no public address"
    return ""


def check_addresses(host: str, addresses: list[str], *, allow_private: bool) -> list[str]:
    """The addresses of a host, if nothing is wrong with any of them: a name that stands for a public address and a
    private one is up to no good.

    Raises:
        Undelivered: one of them is not allowed, or there is none.
    """
    if not addresses:
        raise Undelivered(f"{host} has no address")
    for address in addresses:
        fault = fault_of(address, allow_private=allow_private)
        if fault:
            remedy = "" if allow_private else "; if that is meant, set the destination with --allow-private"
            raise Undelivered(f"{host} is {address}, which {fault}: nothing is sent there{remedy}")
    return addresses
