"""Makes a group of backend `hetsp`: what every rank does between init_process_group and its first message.

Each rank first tells what it sees of its machine; rank 0 makes one topology of that, or checks the one that was given. Then all
connect (meeting.py). After each step all ranks agree over the store, so that what fails on one fails on all, with the same
words.
"""

import logging
import mmap
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import HetspError, InvalidArgument
from . import gpu_lanes, lanes
from .agreement import agree
from .discovery import Sight, discover, is_loopback
from .interfaces import Interface, address_towards, identity, interfaces, location
from .meeting import Formed, Meeting
from .options import SHARED_MEMORY, Options
from .shared import Shared
from .topology import Nic, Node, Topology, parse

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["Formed", "form", "see", "topology_of"]

logger = logging.getLogger("hetsp.distributed")


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

        formed = Meeting(store, rank, size, timeout, topology, job, door).connect(share)
    except BaseException:
        door.close()
        raise
    for peer, rail, _, context in formed.rails:
        if context is None:
            logger.warning("rail %d to rank %d is down; it is used as soon as it answers", rail, peer)
    return replace(formed, gpu_why=agreed["gpu"])
