"""How ranks that have agreed on a topology come to their connections.

open     each rank listens on its NICs and its control address, and tells where
reach    each rank asks all others over the control network; a silent one is an error that names it
share    (meanwhile) ranks of a node exchange memory; what keeps one from it keeps the node on loopback
connect  control, loopback where it is needed, rails; a rail that fails is left to be revived, two nodes without any are an
         error
"""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import HetspError, InvalidArgument, PeerLost
from . import lanes
from .agreement import agree
from .interfaces import interfaces, is_local
from .shared import Shared
from .topology import Nic, Node, Topology

if TYPE_CHECKING:
    from torch.distributed import ProcessGroupGloo, Store

__all__ = ["Formed", "Meeting"]

LOOPBACK = "127.0.0.1"
REACH_SECONDS = 4.0  # that a control address has to answer
SHARE_SECONDS = 3.0  # for what takes a millisecond unless somebody is in the way
RAIL_SECONDS = 2.5  # that a NIC has to answer before the group forms without it


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


@dataclass(frozen=True)
class Meeting:
    """This rank's part in it. Every step of one rank waits for that step of all others, and fails with them."""

    store: "Store"
    rank: int
    size: int
    timeout: timedelta
    topology: Topology
    job: int
    door: lanes.Door

    @property
    def home(self) -> int:
        return self.topology.node_of(self.rank)

    @property
    def node(self) -> Node:
        return self.topology.nodes[self.home]

    def control_of(self, rank: int) -> str:
        """Where a rank is reached whatever its NICs do."""
        return self.topology.nodes[self.topology.node_of(rank)].control if len(self.topology.nodes) > 1 else LOOPBACK

    def agree(self, stage: str, report: Callable[[], Any], decide: Callable[[list[Any]], Any]) -> Any:
        return agree(self.store, stage, self.rank, self.size, self.timeout, report, decide)

    def connect(self, share: Callable[[], Shared]) -> Formed:
        """All of the steps; `share` makes this rank's memory for its neighbours."""
        segments = Segments(self.node.ranks, share)
        try:
            return self.connect_with(segments)
        except BaseException:
            segments.close()
            raise

    def connect_with(self, segments: "Segments") -> Formed:
        ports = self.agree("open", lambda: self.open(segments), lambda reports: reports)
        segments.meet([ports[other]["shared"] for other in self.node.ranks])
        loopback = self.agree("reach", lambda: self.reach(ports, segments), self.none_is_silent)
        if loopback[self.home]:
            segments.close()
        rails = self.topology.rails_of(self.rank)
        places = {(peer, rail): (nic.address, ports[peer][str(rail)]) for peer, rail, _, nic in rails}
        ends = {(peer, rail): lanes.End(own.address, places[peer, rail]) for peer, rail, own, _ in rails}
        maker = lanes.Rails(self.job, self.rank, ends, self.door)
        control, local, made = None, None, {}

        def connected() -> list[int]:
            nonlocal control, local, made
            if self.size > 1:
                control = self.control()
            if loopback[self.home]:
                local = self.local()
            made = maker.all_within(RAIL_SECONDS)
            return sorted({self.topology.node_of(peer) for peer, _ in made})

        self.agree("connect", connected, self.none_is_cut_off)
        contexts = [(peer, rail, *made.get((peer, rail), (None, 0))) for peer, rail, _, _ in rails]
        return Formed(
            self.topology,
            self.job,
            control,
            local,
            [(peer, rail, generation, context) for peer, rail, context, generation in contexts],
            maker,
            shared=segments.shared,
            loopback=loopback,
        )

    def open(self, segments: "Segments") -> dict[str, Any]:
        """Listens; returns the port of each place, and what keeps this rank from sharing memory."""
        ports: dict[str, Any] = {}
        control = self.control_of(self.rank)
        if not is_local(control):
            raise InvalidArgument(f"the control address {control!r} of node {self.home} is not on this machine: {addresses()}")
        nics = {str(rail): nic for _, rail, nic, _ in self.topology.rails_of(self.rank)}
        for rail, nic in nics.items():
            if not is_local(nic.address) and not may_come_back(nic):
                raise InvalidArgument(
                    f"NIC {nic.name!r} of node {self.home}: {nic.address!r} is not on this machine: {addresses()}"
                )
            ports[rail] = self.door.listen(nic.address)
        ports["control"] = self.door.listen(control)
        self.door.start()
        return ports | {"shared": segments.make()}

    def reach(self, ports: Sequence[dict[str, Any]], segments: "Segments") -> dict[str, Any]:
        """Asks all others; tells who is silent, and again what keeps this rank from sharing memory."""
        places = {other: (self.control_of(other), ports[other]["control"]) for other in range(self.size) if other != self.rank}
        return {"silent": lanes.reach(self.job, self.rank, places, REACH_SECONDS), "shared": segments.why}

    def none_is_silent(self, reports: Sequence[dict[str, Any]]) -> list[str]:
        """Of what all ranks said then: per node, why its ranks do not share memory."""
        complaints = Counter(peer for each in reports for peer in each["silent"])
        if complaints:
            ((worst, _),) = complaints.most_common(1)
            by = [other for other, each in enumerate(reports) if worst in each["silent"]]
            raise PeerLost(
                f"rank {worst} on node {self.topology.node_of(worst)} cannot be reached at its control address "
                f"{self.control_of(worst)} by ranks {by} within {REACH_SECONDS:.0f} s"
            )
        return [next((why for other in each.ranks if (why := reports[other]["shared"])), "") for each in self.topology.nodes]

    def control(self) -> "ProcessGroupGloo":
        place = prefixed(self.store, f"{self.job}/control")
        return lanes.mesh(place, self.rank, self.size, self.control_of(self.rank), "the control network")

    def local(self) -> "ProcessGroupGloo":
        place, ranks = prefixed(self.store, f"{self.job}/local/{self.home}"), self.node.ranks
        return lanes.mesh(place, ranks.index(self.rank), len(ranks), LOOPBACK, "the loopback network")

    def none_is_cut_off(self, reports: Sequence[Sequence[int]]) -> None:
        """`reports`: per rank, the nodes that its rails lead to."""
        pairs = {(self.topology.node_of(other), node) for other, nodes in enumerate(reports) for node in nodes}
        for a in range(len(self.topology.nodes)):
            for b in range(a + 1, len(self.topology.nodes)):
                if (a, b) not in pairs or (b, a) not in pairs:
                    raise PeerLost(cut_off(self.topology, a, b))


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
    names = {name for _, name in socket.if_nameindex()}
    return nic.name in names and not any(each.name == nic.name and each.up for each in interfaces())
