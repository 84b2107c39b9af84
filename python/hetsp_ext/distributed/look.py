"""What ranks find of each other, without sending anything: the topology, and which rails answer."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .agreement import agree
from .backend import gpu_lanes_missing
from .group import form
from .topology import Topology

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["look", "rail_records", "topology_record", "topology_text"]


def look(store: "Store", rank: int, size: int, timeout: timedelta, options: Any) -> dict[str, Any]:
    """Forms the connections of a group, notes which are up, and closes them; the same record on every rank."""
    formed = form(store, rank, list(range(size)), size, timeout, options, gpu=gpu_lanes_missing)

    def recorded(reports: list[list[list[int]]]) -> dict[str, Any]:
        return topology_record(formed.topology, reports, formed.loopback) | {"gpu_lanes": formed.gpu_why}

    up = [[peer, rail] for peer, rail, _, context in formed.rails if context is not None]
    try:
        return agree(store, "look", rank, size, timeout, lambda: up, recorded)
    finally:
        formed.close()


def topology_record(topology: Topology, up: Sequence[Sequence[Sequence[int]]], loopback: Sequence[str] = ()) -> dict[str, Any]:
    """As JSON: the nodes as HETSP_TOPOLOGY has them, with the owner of every NIC and what joins the ranks inside; the rails.

    `up`: per rank (peer, rail). `loopback`: per node why its ranks share no memory.
    """
    nodes = topology.as_records()
    for index, node in enumerate(nodes):
        for number, nic in enumerate(node["nics"]):
            nic["owner"] = topology.owner(index, number)
        why = loopback[index] if loopback else ""
        node["inside"] = "shared memory" if not why else f"loopback: {why}"
    return {"nodes": nodes, "rails": rail_records(topology, up)}


def rail_records(topology: Topology, up: Sequence[Sequence[Sequence[int]]]) -> list[dict[str, Any]]:
    """Every rail once: its two nodes, number, the ranks that own its ends, whether it is up."""
    return [
        {
            "nodes": [a, b],
            "rail": rail,
            "ranks": [topology.owner(a, rail), topology.owner(b, rail)],
            "up": [topology.owner(b, rail), rail] in [list(each) for each in up[topology.owner(a, rail)]],
        }
        for a in range(len(topology.nodes))
        for b in range(a + 1, len(topology.nodes))
        for rail in range(topology.rails(a, b))
    ]


def topology_text(record: dict[str, Any]) -> str:
    """The record for people: a paragraph per node, then the rails that are down."""
    lines = []
    for index, node in enumerate(record["nodes"]):
        lines.append(f"node {index}  ranks {', '.join(map(str, node['ranks']))}  control {node['control'] or 'loopback'}")
        if len(node["ranks"]) > 1 and "inside" in node:
            lines.append(f"  inside  {node['inside']}")
        for number, nic in enumerate(node["nics"]):
            rate = f"{nic['rate'] * 8 / 1e9:g} Gbit/s" if nic["rate"] else "rate not known"
            name = nic["name"] or "(no name)"
            lines.append(f"  rail {number}  {name:<10} {nic['address']:<16} {rate:<15} driven by rank {nic['owner']}")
        if not node["nics"]:
            lines.append("  no network interface but loopback")
    rails = record["rails"]
    down = [rail for rail in rails if not rail["up"]]
    if len(record["nodes"]) == 1:
        lines.append("one node: messages stay in it")
    else:
        lines.append(
            f"{len(rails)} rail{'s' * (len(rails) != 1)} between {len(record['nodes'])} nodes, {len(rails) - len(down)} up"
        )
    lines += [f"down: rail {rail['rail']} between the ranks {rail['ranks'][0]} and {rail['ranks'][1]}" for rail in down]
    if "gpu_lanes" in record:
        why = record["gpu_lanes"]
        lines.append(f"GPU memory goes through host memory: {why}" if why else "GPU memory can travel by NCCL (gpu_lanes)")
    return "\n".join(lines)
