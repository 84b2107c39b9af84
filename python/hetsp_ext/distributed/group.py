"""Makes a group of backend `hetsp`: what every rank does between init_process_group and its first message.

    see      each rank tells what it sees of its machine; rank 0 makes one topology of that, or checks the one that was given
    open     each rank listens on its NICs and its control address, and tells where
    reach    each rank asks all others over the control network; a silent one is an error that names it
    share    (meanwhile) ranks of a node exchange memory; what keeps one from it keeps the node on loopback
    connect  control, loopback where it is needed, rails; a rail that fails is left to be revived, two nodes without any are an
             error

After each of these all ranks agree over the store, so that what fails on one fails on all, with the same words.
"""

import logging
import mmap
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import HetspError, InvalidArgument, PeerLost
from . import gpu_lanes, lanes
from .agreement import agree
from .discovery import Sight, discover, is_loopback
from .interfaces import Interface, address_towards, identity, interfaces, is_local, location
from .options import SHARED_MEMORY, Options
from .shared import Shared
from .topology import Nic, Node, Topology, parse

if TYPE_CHECKING:
    from torch.distributed import ProcessGroupGloo, Store

__all__ = ["Formed", "form", "see", "topology_of"]

LOOPBACK = "127.0.0.1"
REACH_SECONDS = 4.0  # that a control address has to answer
SHARE_SECONDS = 3.0  # for what takes a millisecond unless somebody is in the way
RAIL_SECONDS = 2.5  # that a NIC has to answer before the group forms without it

logger = logging.getLogger("hetsp.distributed")


@dataclass(frozen=True)
class Formed:
    """The connections of one rank of a group that has formed."""

    topology: Topology
    job: int
    control: "ProcessGroupGloo | None"
    local: "ProcessGroupGloo | None"
    rails: list[tuple[int, int, int, "ProcessGroupGloo | None"]]  # peer, rail, generation, context
    connect: lanes.Rails
    gpu_why: str = ""  # why the group has no lanes for the memory of GPUs
    shared: Shared | None = None  # with the other ranks of the node
    loopback: list[str] = field(default_factory=list)  # per node: why its ranks do not share memory; "": they do, or it has one

    def close(self) -> None:
        """Ends the listening, and lets go of what nobody has taken over."""
        self.connect.close()
        if self.shared is not None:
            self.shared.close()


def see(options: Options, ranks: Sequence[int], world: int) -> dict[str, Any]:
    """What this rank reports: its machine, and the topology of the group if one was given."""
    master = os.environ.get("MASTER_ADDR", "")
    given = None
    if options.topology is not None:
        given = parse(options.topology, world, options.source).of_group(ranks).as_records()
    return {
        "identity": identity(),
        "interfaces": [asdict(each) for each in interfaces()],
        "towards": address_towards(master) if master else "",
        **location(),
        "given": given,
        "source": options.source,
        "byteorder": sys.byteorder,
        "sizes": [options.chunk_bytes, options.direct_bytes],
    }


def topology_of(reports: Sequence[dict[str, Any]]) -> Topology:
    """The one topology of ranks that reported this. Raises InvalidArgument where reports contradict each other."""
    for name, words in (("byteorder", "byte order"), ("sizes", "chunk_bytes and direct_bytes")):
        for rank, report in enumerate(reports):
            if report[name] != reports[0][name]:
                raise InvalidArgument(
                    f"rank {rank} has the {words} {report[name]}, rank 0 has {reports[0][name]}; they must be equal"
                )
    sights = [
        Sight(
            report["identity"],
            tuple(Interface(**each) for each in report["interfaces"]),
            report["towards"],
            report["bus"],
            report["numa"],
        )
        for report in reports
    ]
    first = reports[0]
    for rank, report in enumerate(reports):
        if report["given"] != first["given"]:
            raise InvalidArgument(
                f"the topology of rank {rank} ({report['source'] or 'discovered'}) is not that of rank 0 "
                f"({first['source'] or 'discovered'}): {difference(first['given'], report['given'])}; give every rank the same"
            )
    if first["given"] is None:
        return discover(sights)
    return completed([node_of_record(record) for record in first["given"]], sights, first["source"])


def node_of_record(record: dict[str, Any]) -> Node:
    return Node(tuple(record["ranks"]), tuple(Nic(**nic) for nic in record["nics"]), record["control"])


def difference(ours: Any, theirs: Any, place: str = "nodes") -> str:
    """The first place where two values of JSON differ."""
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return f"{place} has {len(theirs)} entries there and {len(ours)} on rank 0"
        return next(difference(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return next(difference(ours[key], theirs[key], f"{place}.{key}") for key in ours if ours[key] != theirs[key])
    if ours is None or theirs is None:
        return f"one is given on {'rank 0' if theirs is None else 'that rank'} alone"
    return f"{place} is {theirs!r} there and {ours!r} on rank 0"


def completed(nodes: Sequence[Node], sights: Sequence[Sight], source: str) -> Topology:
    """The given nodes with every NIC's address and every control address looked up where they were left out."""
    found = []
    for index, node in enumerate(nodes):
        own = sights[node.ranks[0]]
        for rank in node.ranks:
            if sights[rank].identity != own.identity:
                raise InvalidArgument(
                    f"{source}: nodes[{index}] has the ranks {node.ranks[0]} on {own.host} and {rank} on {sights[rank].host}, "
                    "which share no machine or no network namespace; ranks of one node must"
                )
        nics = tuple(looked_up(nic, own, f"nodes[{index}].nics[{number}]", source) for number, nic in enumerate(node.nics))
        apart = len({sights[other.ranks[0]].identity for other in nodes}) > 1
        towards = "" if apart and is_loopback(own.towards) else own.towards
        found.append(Node(node.ranks, nics, node.control or towards or (nics[0].address if nics else "")))
    return Topology(tuple(found))


def looked_up(nic: Nic, sight: Sight, place: str, source: str) -> Nic:
    here = {each.name: each for each in sight.interfaces}
    if nic.address:
        name = nic.name or next((each.name for each in sight.interfaces if each.address == nic.address), "")
        return replace(nic, name=name, rate=nic.rate or (here[name].rate if name in here else 0.0))
    if nic.name not in here:
        raise InvalidArgument(
            f"{source}: {place} is {nic.name!r}, and {sight.host} has no interface of that name with an address; "
            f"it has {', '.join(here) or 'none'}"
        )
    return replace(nic, address=here[nic.name].address, rate=nic.rate or here[nic.name].rate)


def form(
    store: "Store",
    rank: int,
    ranks: Sequence[int],
    world: int,
    timeout: timedelta,
    options: Any,
    possible: Callable[[], None] = lambda: None,
    gpu: Callable[[], str] = lambda: gpu_lanes.NOT_ASKED,
    segment_bytes: Callable[[int, int, bool], int] = lambda chunk_bytes, ranks, on_gpu: mmap.PAGESIZE,
) -> Formed:
    """Comes to the connections of this rank; `ranks`: the group's, of the default group. The same error on all if on any.

    `possible` raises where this rank cannot have such a group for other reasons; `gpu` says why it can have no lanes for the
    memory of its GPU, or "". `segment_bytes(chunk_bytes, ranks of the node, whether there are such lanes)`: of the memory that
    a rank gives the others of its node.
    """
    size = len(ranks)

    def report() -> dict[str, Any]:
        possible()
        return see(Options.of(options), ranks, world) | {"gpu": gpu()}

    def decide(reports: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "job": secrets.randbits(63) | 1,
            "nodes": topology_of(reports).as_records(),
            "gpu": gpu_lanes.chosen([report["gpu"] for report in reports]),
        }

    agreed = agree(store, "see", rank, size, timeout, report, decide)
    topology, job = Topology(tuple(node_of_record(record) for record in agreed["nodes"])), int(agreed["job"])
    door = lanes.Door(job)
    try:
        chosen = Options.of(options)

        def share() -> Shared:
            if not chosen.shared_memory:
                raise HetspError(f"rank {rank} was told not to: the option shared_memory, or {SHARED_MEMORY}")
            neighbours = topology.nodes[topology.node_of(rank)].ranks
            return Shared(job, rank, neighbours, segment_bytes(chosen.chunk_bytes, len(neighbours), agreed["gpu"] == ""))

        formed = connect(store, rank, size, timeout, topology, job, door, share)
    except BaseException:
        door.close()
        raise
    for peer, rail, _, context in formed.rails:
        if context is None:
            logger.warning("rail %d to rank %d is down; it is used as soon as it answers", rail, peer)
    return replace(formed, gpu_why=agreed["gpu"])


def connect(
    store: "Store",
    rank: int,
    size: int,
    timeout: timedelta,
    topology: Topology,
    job: int,
    door: lanes.Door,
    share: Callable[[], Shared],
) -> Formed:
    """The same for an agreed topology; `share` makes this rank's memory for its neighbours."""
    segments = Segments(topology.nodes[topology.node_of(rank)].ranks, share)
    try:
        return connect_with(segments, store, rank, size, timeout, topology, job, door)
    except BaseException:
        segments.close()
        raise


def connect_with(
    segments: "Segments",
    store: "Store",
    rank: int,
    size: int,
    timeout: timedelta,
    topology: Topology,
    job: int,
    door: lanes.Door,
) -> Formed:
    home = topology.node_of(rank)
    node = topology.nodes[home]
    several = len(topology.nodes) > 1
    control = node.control if several else LOOPBACK
    rails = topology.rails_of(rank)

    def opened() -> dict[str, Any]:
        ports: dict[str, Any] = {}
        if not is_local(control):
            raise InvalidArgument(f"the control address {control!r} of node {home} is not on this machine: {addresses()}")
        own = {"control": control} | {str(rail): nic.address for _, rail, nic, _ in rails}
        for name, address in own.items():
            if name != "control" and not is_local(address) and not may_come_back(nic := node.nics[int(name)]):
                raise InvalidArgument(f"NIC {nic.name!r} of node {home}: {address!r} is not on this machine: {addresses()}")
            ports[name] = door.listen(address)
        door.start()
        return ports | {"shared": segments.make()}

    ports = agree(store, "open", rank, size, timeout, opened, lambda reports: reports)
    places = {
        other: (topology.nodes[topology.node_of(other)].control if several else LOOPBACK, ports[other]["control"])
        for other in range(size)
        if other != rank
    }

    segments.meet([ports[other]["shared"] for other in node.ranks])

    def reached() -> dict[str, Any]:
        return {"silent": lanes.reach(job, rank, places, REACH_SECONDS), "shared": segments.why}

    def silent(reports: list[dict[str, Any]]) -> list[str]:
        complaints = Counter(peer for each in reports for peer in each["silent"])
        if complaints:
            ((worst, _),) = complaints.most_common(1)
            by = [other for other, each in enumerate(reports) if worst in each["silent"]]
            raise PeerLost(
                f"rank {worst} on node {topology.node_of(worst)} cannot be reached at its control address "
                f"{topology.nodes[topology.node_of(worst)].control or LOOPBACK} by ranks {by} within {REACH_SECONDS:.0f} s"
            )

        return [next((why for other in each.ranks if (why := reports[other]["shared"])), "") for each in topology.nodes]

    loopback = agree(store, "reach", rank, size, timeout, reached, silent)
    if loopback[home]:
        segments.close()
    ends = {(peer, rail): lanes.End(own.address, (other.address, ports[peer][str(rail)])) for peer, rail, own, other in rails}
    maker = lanes.Rails(job, rank, ends, door)
    made: dict[str, Any] = {}

    def connected() -> list[int]:
        if size > 1:
            made["control"] = lanes.mesh(prefixed(store, f"{job}/control"), rank, size, control, "the control network")
        if loopback[home]:
            place, prefix = node.ranks.index(rank), prefixed(store, f"{job}/local/{home}")
            made["local"] = lanes.mesh(prefix, place, len(node.ranks), LOOPBACK, "the loopback network")
        made["rails"] = maker.all_within(RAIL_SECONDS)
        return sorted({topology.node_of(peer) for peer, _ in made["rails"]})

    def joined(reports: list[list[int]]) -> None:
        pairs = {(topology.node_of(other), node) for other, nodes in enumerate(reports) for node in nodes}
        for a in range(len(topology.nodes)):
            for b in range(a + 1, len(topology.nodes)):
                if (a, b) not in pairs or (b, a) not in pairs:
                    raise PeerLost(cut_off(topology, a, b))

    agree(store, "connect", rank, size, timeout, connected, joined)
    contexts = made["rails"]
    return Formed(
        topology,
        job,
        made.get("control"),
        made.get("local"),
        [
            (peer, rail, generation, context)
            for peer, rail, _, _ in rails
            for context, generation in [contexts.get((peer, rail), (None, 0))]
        ],
        maker,
        shared=segments.shared,
        loopback=loopback,
    )


class Segments:
    """This rank's part in the memory of its node, or why there is none. Never raises: then the node stays on loopback."""

    def __init__(self, ranks: Sequence[int], share: Callable[[], Shared]) -> None:
        self.ranks, self.share = ranks, share
        self.shared: Shared | None = None
        self.why = ""

    def make(self) -> str:
        """Opens this rank's segment to the others; returns what keeps it from that."""
        if len(self.ranks) > 1:
            try:
                self.shared = self.share()
            except HetspError as error:
                self.why = str(error)
        return self.why

    def meet(self, reasons: Sequence[str]) -> None:
        """Exchanges segments, if every rank of the node has one."""
        self.why = next(filter(None, reasons), "")
        if self.shared is None or self.why:
            return
        try:
            self.shared.meet(SHARE_SECONDS)
        except HetspError as error:
            self.why = str(error)

    def close(self) -> None:
        if self.shared is not None:
            self.shared.close()
        self.shared = None


def cut_off(topology: Topology, a: int, b: int) -> str:
    """Says that no rail joins two nodes."""
    tried = [
        f"{one.name or one.address} to {other.name or other.address}"
        for one, other in zip(topology.nodes[a].nics, topology.nodes[b].nics, strict=False)
    ]
    return (
        f"rank {topology.nodes[b].ranks[0]} and the other ranks of node {b} cannot be reached from node {a} over any NIC "
        f"within {RAIL_SECONDS} s; tried {', '.join(tried)}"
    )


def prefixed(store: "Store", prefix: str) -> "Store":
    from torch.distributed import PrefixStore

    return PrefixStore(prefix, store)


def addresses() -> str:
    return ", ".join(f"{each.name} {each.address}" for each in interfaces()) or "it has no address"


def may_come_back(nic: Nic) -> bool:
    """Whether the NIC is there but down, so that its address may be missing for now."""
    import socket

    names = {name for _, name in socket.if_nameindex()}
    return nic.name in names and not any(each.name == nic.name and each.up for each in interfaces())
