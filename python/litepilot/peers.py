"""The nodes of a cluster, from the addresses that `RAFT_PEERS` lists."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Where Litepilot listens by default.
_PORT = "4321"
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})")


class PeersError(ValueError):
    """What is wrong with which key."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


@dataclass(frozen=True)
class Peers:
    """Every node with its address, which of them this one is, and where it listens."""

    addresses: dict[str, str] | None = None
    node: str | None = None
    listen: str | None = None

    @classmethod
    def read(cls, peers: Any, own: str | None, node: str | None) -> Peers:
        """From RAFT_PEERS, a list of addresses or the addresses by name, RAFT_SELF_ADDR and NODE_ID.

        Raises PeersError.
        """
        if not peers and own is None:
            return cls(node=node)
        if not peers:
            peers = [own] if node is None else {node: own}
        if isinstance(peers, Mapping):
            addresses = {_text(name): _address(address) for name, address in peers.items()}
            node = _named(addresses, own, node)
        elif isinstance(peers, Sequence) and not isinstance(peers, (str, bytes)):
            addresses, node = _listed([_address(address) for address in peers], own, node)
        else:
            raise PeersError("RAFT_PEERS", "write a list of HOST:PORT, or {name: HOST:PORT}")
        return cls(addresses, node, _listen(addresses, node))


def _named(addresses: dict[str, str], own: str | None, node: str | None) -> str | None:
    """The name of this node, if that is said. If not, Litepilot finds it in the environment."""
    if node is not None and node not in addresses:
        raise PeersError("NODE_ID", f"{node} is not among RAFT_PEERS, {', '.join(addresses)}")
    if own is None:
        return node
    names = [name for name, address in addresses.items() if address == own]
    if not names or node not in (None, names[0]):
        raise PeersError("RAFT_SELF_ADDR", f"{own} is not this node's address in RAFT_PEERS")
    return names[0]


def _listed(
    peers: list[str], own: str | None, node: str | None
) -> tuple[dict[str, str], str | None]:
    """Names for addresses: their hosts, and where one has several nodes, their ports too."""
    if own is None:
        raise PeersError("RAFT_SELF_ADDR", "missing: which of RAFT_PEERS this node is")
    own = _address(own, "RAFT_SELF_ADDR")
    everybody = list(dict.fromkeys([*peers, own]))
    if _is_loopback(own) and not all(map(_is_loopback, everybody)):
        what = f"{own} is no address for the others: write how they reach this node"
        raise PeersError("RAFT_SELF_ADDR", what)
    hosts = [_host(address) for address in everybody]
    distinct = len(set(hosts)) == len(hosts)
    names = {address: _name(address, with_port=not distinct) for address in everybody}
    if node is not None and node != names[own]:
        what = f"{node}, but by its address this node is {names[own]}: write RAFT_PEERS as {{name: address}}"
        raise PeersError("NODE_ID", what)
    return {names[address]: address for address in sorted(everybody)}, names[own]


def _listen(addresses: dict[str, str], node: str | None) -> str | None:
    """Where this node listens for the others, unless that is Litepilot's default."""
    if node is None:
        node = os.environ.get("LITEPILOT_NODE") or os.environ.get("LITEFS_NODE_ID")
        node = node or socket.gethostname()
    own = addresses.get(node)
    ports = {_port(address) for address in ([own] if own else addresses.values())}
    if len(ports) > 1:
        raise PeersError(
            "NODE_ID", "missing: RAFT_PEERS have several ports, so which is this node?"
        )
    port = ports.pop()
    local = all(map(_is_loopback, addresses.values()))
    return None if port == _PORT else f"{'127.0.0.1' if local else '0.0.0.0'}:{port}"


def _text(name: Any) -> str:
    if isinstance(name, str) and name:
        return name
    raise PeersError("RAFT_PEERS", f"{name!r} is no name of a node")


def _address(address: Any, key: str = "RAFT_PEERS") -> str:
    if isinstance(address, str) and _ADDRESS.fullmatch(address):
        return address
    raise PeersError(key, f"{address!r} is no address: write HOST:PORT")


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _port(address: str) -> str:
    return str(int(address.rpartition(":")[2]))


def _is_loopback(address: str) -> bool:
    host = _host(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(address: str, with_port: bool) -> str:
    """Of letters, digits, `.`, `_` and `-`, beginning with one of the first two."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", _host(address))
    name = name if name[:1].isalnum() else f"n{name}"
    return f"{name}-{_port(address)}" if with_port else name
