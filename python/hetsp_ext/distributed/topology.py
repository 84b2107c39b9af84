"""Which ranks live on which node, the NICs of a node, and the rails that NICs form: checked, as JSON, and of a subgroup.

The file that HETSP_TOPOLOGY names, and the option `topology` of a group, hold

    {"nodes": [{"ranks": [0, 1], "nics": [{"name": "nic0", "address": "10.200.0.1", "rate": 50e6}], "control": "10.255.0.1"}]}

with ranks of the default group. Of a NIC either name or address is enough; its rate (bytes/s) and a node's control address may
be left out. The rules of owners and rails are those of csrc/hetsp/comm/topology.h.
"""

import ipaddress
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument

__all__ = ["Nic", "Node", "Topology", "parse", "read_topology"]


@dataclass(frozen=True)
class Nic:
    """A network interface as its node names it. Empty name or address: its node will look it up."""

    name: str = ""
    address: str = ""
    rate: float = 0.0  # bytes/s; 0: not known


@dataclass(frozen=True)
class Node:
    """A machine, or a network namespace of one."""

    ranks: tuple[int, ...]
    nics: tuple[Nic, ...] = ()
    control: str = ""  # address for control messages; "": the one towards MASTER_ADDR


@dataclass(frozen=True)
class Topology:
    """All nodes of a group."""

    nodes: tuple[Node, ...]

    def node_of(self, rank: int) -> int:
        """Index of the node that the rank lives on."""
        return next(index for index, node in enumerate(self.nodes) if rank in node.ranks)

    def rails(self, a: int, b: int) -> int:
        """How many rails join two nodes: as many as the poorer one has NICs."""
        return min(len(self.nodes[a].nics), len(self.nodes[b].nics))

    def owner(self, node: int, nic: int) -> int:
        """The rank that drives a NIC: the first of the node whose NIC it is."""
        ranks = self.nodes[node].ranks
        return ranks[nic % len(ranks)]

    def rails_of(self, rank: int) -> list[tuple[int, int, Nic, Nic]]:
        """Every rail that the rank owns an end of: owner of the other end, number, own NIC, the other end's NIC."""
        home = self.node_of(rank)
        return [
            (self.owner(other, rail), rail, self.nodes[home].nics[rail], self.nodes[other].nics[rail])
            for other in range(len(self.nodes))
            if other != home
            for rail in range(self.rails(home, other))
            if self.owner(home, rail) == rank
        ]

    def of_group(self, ranks: Sequence[int]) -> "Topology":
        """The part that matters to a group of these ranks, numbered by their places in it."""
        place = {rank: index for index, rank in enumerate(ranks)}
        nodes = []
        for node in self.nodes:
            own = tuple(sorted(place[rank] for rank in node.ranks if rank in place))
            if own:
                nodes.append(Node(own, node.nics, node.control))
        return Topology(tuple(nodes))

    def as_records(self) -> list[dict[str, Any]]:
        """The nodes as JSON holds them."""
        return [asdict(node) | {"ranks": list(node.ranks), "nics": [asdict(nic) for nic in node.nics]} for node in self.nodes]


def read_topology(path: Path, source: str) -> dict[str, Any]:
    """What a file holds, not yet checked; `source` says in errors who named the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{source} names {str(path)!r}, which cannot be read: {error.strerror}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{source} names {str(path)!r}, which is not JSON: {error}") from error
    if value is None:  # which as an option would mean that none is given
        raise InvalidArgument(f"{source} names {str(path)!r}, which holds null; an object with the key nodes is needed")
    return value


def parse(value: object, size: int, source: str) -> Topology:
    """The topology of `size` ranks that `value` (from JSON) describes; `source` says in errors where it came from."""
    record = mapping(value, {"nodes"}, source, "the topology")
    nodes = sequence(record.get("nodes"), source, "nodes")
    parsed = Topology(tuple(parse_node(node, f"nodes[{index}]", source) for index, node in enumerate(nodes)))
    require_every_rank_once(parsed, size, source)
    addresses: dict[str, str] = {}
    for index, node in enumerate(parsed.nodes):
        if len(parsed.nodes) > 1 and not node.nics:
            raise InvalidArgument(f"{source}: nodes[{index}] has no nics; every one of several nodes needs at least one")
        for number, nic in enumerate(node.nics):
            place = f"nodes[{index}].nics[{number}]"
            if nic.address and nic.address in addresses:
                raise InvalidArgument(
                    f"{source}: the address {nic.address!r} of {place} is that of {addresses[nic.address]}, too; "
                    "every NIC needs its own"
                )
            addresses[nic.address] = place
    return parsed


def parse_node(value: object, place: str, source: str) -> Node:
    record = mapping(value, {"ranks", "nics", "control"}, source, place)
    ranks = sequence(record.get("ranks"), source, f"{place}.ranks")
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise InvalidArgument(f"{source}: {place}.ranks holds {rank!r}; a rank is a whole number of at least 0")
    nics = sequence(record.get("nics", []), source, f"{place}.nics", empty=True)
    parsed = tuple(parse_nic(nic, f"{place}.nics[{number}]", source) for number, nic in enumerate(nics))
    names = [nic.name for nic in parsed if nic.name]
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(f"{source}: {place}.nics names {name!r} {names.count(name)} times; once is allowed")
    return Node(tuple(sorted(ranks)), parsed, address(record.get("control", ""), f"{place}.control", source))


def parse_nic(value: object, place: str, source: str) -> Nic:
    record = mapping(value, {"name", "address", "rate"}, source, place)
    name, rate = record.get("name", ""), record.get("rate", 0)
    if not isinstance(name, str):
        raise InvalidArgument(f"{source}: {place}.name is {name!r}; an interface's name as text is needed")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
        raise InvalidArgument(f"{source}: {place}.rate is {rate!r}; bytes per second are needed, or 0 for not known")
    where = address(record.get("address", ""), f"{place}.address", source)
    if not name and not where:
        raise InvalidArgument(f"{source}: {place} is {dict(record)!r}; it needs a name or an address")
    return Nic(name, where, float(rate))


def address(value: object, place: str, source: str) -> str:
    """An IP address in its one canonical spelling; "" stays."""
    if value == "":
        return ""
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise InvalidArgument(f"{source}: {place} is {value!r}; an IP address such as '10.200.0.1' is needed") from None


def mapping(value: object, allowed: set[str], source: str, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{source}: {place} is {value!r}; an object with the keys {', '.join(sorted(allowed))} is needed")
    unknown = [key for key in value if key not in allowed]
    if unknown:
        raise InvalidArgument(f"{source}: {place} has the key {unknown[0]!r}; allowed are {', '.join(sorted(allowed))}")
    return value


def sequence(value: object, source: str, place: str, empty: bool = False) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise InvalidArgument(f"{source}: {place} is {value!r}; a list of at least {0 if empty else 1} is needed")
    return value


def require_every_rank_once(topology: Topology, size: int, source: str) -> None:
    seen: dict[int, int] = {}
    for index, node in enumerate(topology.nodes):
        for rank in node.ranks:
            if rank in seen:
                raise InvalidArgument(
                    f"{source}: rank {rank} is in nodes[{seen[rank]}] and in nodes[{index}]; every rank lives on one node, once"
                )
            if rank >= size:
                raise InvalidArgument(
                    f"{source}: nodes[{index}] has rank {rank}; allowed are 0 to {size - 1}, the ranks there are"
                )
            seen[rank] = index
    missing = [rank for rank in range(size) if rank not in seen]
    if missing:
        raise InvalidArgument(f"{source}: rank {missing[0]} is on no node; each of the ranks 0 to {size - 1} must be on one")
