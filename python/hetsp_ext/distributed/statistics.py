"""What a group of backend `hetsp` has sent, over which NICs and routes, as this rank counts it."""

from typing import TYPE_CHECKING, Any

from .backend import backend_of, loopback, topologies, without_gpu_lanes
from .topology import Nic

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["statistics"]

ROUTES = ("eager", "direct", "spread", "local")


def statistics(group: "ProcessGroup | None" = None) -> dict[str, Any]:
    """Counters of this rank since the group was made (None: the default group). Not a collective: every rank has its own.

    nics        per NIC that this rank drives: name, address, bytes_sent, bytes_received, frames_resent, lanes, lanes_down
    lanes       per rail: nic, node and rank at the other end, rail, up, generation, bytes, times_down, seconds and rates
    lanes_down  how many of them are down now
    routes      messages sent, by route: eager (inside their announcement), direct (the own NIC), spread (over several NICs),
                local (inside the node)
    gpu         lanes for the memory of GPUs: `why` there are none, else "", and what went over them
    inside      what joins the ranks of this node: "shared memory", or "loopback: " and why
    and the engine's other counters: messages, chunks sent, re-sent and relayed, duplicates and foreign frames dropped.
    Raises InvalidArgument for a group of another backend.
    """
    backend = backend_of(group)
    counts = dict(backend.statistics())
    topology, rank = topologies[backend.job], backend.rank()
    home = topology.node_of(rank)
    lanes = [
        lane
        | {
            "nic": topology.nodes[home].nics[lane["rail"]].name,
            "address": topology.nodes[home].nics[lane["rail"]].address,
            "rank": topology.owner(lane["node"], lane["rail"]),
        }
        for lane in counts.pop("rails")
    ]
    routes = {name: counts.pop(name) for name in ROUTES}
    return {
        "nics": [
            summed(nic, [lane for lane in lanes if lane["rail"] == number])
            for number, nic in enumerate(topology.nodes[home].nics)
            if topology.owner(home, number) == rank
        ],
        "lanes": lanes,
        "lanes_down": sum(not lane["up"] for lane in lanes),
        "routes": routes,
        "gpu": {"why": without_gpu_lanes[backend.job], **backend.lane_statistics()},
        "inside": f"loopback: {why}" if (why := loopback[backend.job][home]) else "shared memory",
        **counts,
    }


def summed(nic: Nic, lanes: list[dict[str, Any]]) -> dict[str, Any]:
    """One NIC's lanes as one record."""
    return {
        "name": nic.name,
        "address": nic.address,
        **{name: sum(lane[name] for lane in lanes) for name in ("bytes_sent", "bytes_received", "frames_resent")},
        "lanes": len(lanes),
        "lanes_down": sum(not lane["up"] for lane in lanes),
    }
