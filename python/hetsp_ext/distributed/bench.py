"""Measures bandwidth between nodes per route, size of message and number of flows.

A flow is a pair of ranks, one sending to the other: the i-th ranks of the first two nodes, or of the halves of a single node.
All flows of a measurement start together after a barrier; its time is that of the slowest rank, its rate the bytes of all flows
over that. Every message is compared at the receiver, after the clock has stopped.
"""

import statistics as numbers
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import HetspError, InvalidArgument
from .options import LARGEST
from .statistics import statistics
from .topology import Topology

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ROUTES", "Request", "bench_table", "flows_of", "measure"]

# Route -> backend of its group, and what is added to the group's options.
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "routed": ("hetsp", {}),
    "direct": ("hetsp", {"direct_bytes": LARGEST}),
    "gloo": ("gloo", {}),
}
SMALL = 1 << 20  # bytes; smaller messages are sent several times in a row, up to MOST times
MOST = 64


@dataclass(frozen=True)
class Request:
    """What is measured."""

    routes: Sequence[str] = ("routed", "direct")
    sizes: Sequence[int] = (64 << 10, 1 << 20, 16 << 20, 64 << 20)  # bytes of a message
    flows: Sequence[int] = (1, 2, 4)  # those that there are ranks for
    repeat: int = 5

    def __post_init__(self) -> None:
        for route in self.routes:
            if route not in ROUTES:
                raise InvalidArgument(f"route is {route!r}; allowed are {', '.join(ROUTES)}")
        for name, values, most in (
            ("size", self.sizes, LARGEST),
            ("flows", self.flows, 1 << 16),
            ("repeat", [self.repeat], 1000),
        ):
            for value in values:
                if not 1 <= value <= most:
                    raise InvalidArgument(f"{name} is {value}; allowed are 1 to {most}")


def flows_of(topology: Topology) -> list[tuple[int, int]]:
    """All pairs (sender, receiver) that can be flows."""
    if len(topology.nodes) > 1:
        return list(zip(topology.nodes[0].ranks, topology.nodes[1].ranks, strict=False))
    ranks = topology.nodes[0].ranks
    return list(zip(ranks[: len(ranks) // 2], ranks[len(ranks) // 2 :], strict=False))


def measure(
    request: Request, topology: Topology, groups: dict[str, "ProcessGroup"], progress: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Yields on every rank of the default group one record per route, size and number of flows. A collective."""
    pairs = flows_of(topology)
    if not pairs:
        raise InvalidArgument("a flow needs two ranks; there is one")
    counts = sorted({min(count, len(pairs)) for count in request.flows})
    work = [(size, count, route) for size in request.sizes for count in counts for route in request.routes]
    for done, (size, count, route) in enumerate(work, start=1):
        progress(f"{done}/{len(work)} {route}, {count} flow{'s' * (count > 1)} of {size_text(size)}")
        yield one(request, topology, route, groups[route], pairs[:count], size)


def one(
    request: Request, topology: Topology, route: str, group: "ProcessGroup", pairs: Sequence[tuple[int, int]], size: int
) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    rank, several = dist.get_rank(), min(MOST, max(1, SMALL // size))
    role = next((index for index, pair in enumerate(pairs) if rank in pair), None)
    sends = role is not None and pairs[role][0] == rank
    pattern = torch.arange(size, dtype=torch.int64).mul_(2654435761).add_(role or 0).to(torch.uint8)
    message = pattern if sends else torch.zeros_like(pattern)
    before = sent_by_nic(route, group)
    times = []
    for _ in range(request.repeat + 1):  # the first warms up
        if not sends:
            message.zero_()
        dist.barrier()
        begin = time.perf_counter()
        for _ in range(several if role is not None else 0):
            assert role is not None
            if sends:
                dist.send(message, pairs[role][1], group=group)
            else:
                dist.recv(message, pairs[role][0], group=group)
        own = time.perf_counter() - begin
        every = [torch.zeros(2, dtype=torch.float64) for _ in range(dist.get_world_size())]
        dist.all_gather(every, torch.tensor([own, float(not torch.equal(message, pattern))], dtype=torch.float64))
        wrong = [other for other, (_, differs) in enumerate(every) if differs and any(other in pair for pair in pairs)]
        if wrong:
            raise HetspError(f"rank {wrong[0]} received other bytes than were sent to it, by route {route} and {size} bytes")
        times.append(max(float(each[0]) for each in every) / several)
    seconds = numbers.median(times[1:])
    after: list[dict[str, int]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(after, {nic: count - before.get(nic, 0) for nic, count in sent_by_nic(route, group).items()})
    return {
        "route": route,
        "bytes": size,
        "flows": len(pairs),
        "seconds": seconds,
        "least_seconds": min(times[1:]),
        "most_seconds": max(times[1:]),
        "bytes_per_second": len(pairs) * size / seconds,
        "nic_bytes": [
            {"node": topology.node_of(other), "nic": nic, "bytes": count}
            for other, counts in enumerate(after)
            for nic, count in counts.items()
            if count
        ],
    }


def sent_by_nic(route: str, group: "ProcessGroup") -> dict[str, int]:
    """Bytes that this rank's NICs have sent for the group; nothing for a backend that does not count."""
    if ROUTES[route][0] != "hetsp":
        return {}
    return {nic["name"] or nic["address"]: nic["bytes_sent"] for nic in statistics(group)["nics"]}


def size_text(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def bench_table(records: Sequence[dict[str, Any]]) -> str:
    """A line per record; `NICs`: how many carried something on the way out, repetitions together."""
    lines = [
        f"{'message':>9} {'flows':>5} {'route':<7} {'seconds':>11} {'MB/s':>9} {'Mbit/s':>9} {'least to most':>14} {'NICs':>5}"
    ]
    for each in records:
        rate = each["bytes_per_second"]
        spread = f"{each['least_seconds'] / each['seconds']:.2f} to {each['most_seconds'] / each['seconds']:.2f}"
        used = sum(nic["node"] == 0 and nic["bytes"] > each["bytes"] // 100 for nic in each["nic_bytes"])
        lines.append(
            f"{size_text(each['bytes']):>9} {each['flows']:>5} {each['route']:<7} {each['seconds']:>11.6f} {rate / 1e6:>9.1f} "
            f"{rate * 8 / 1e6:>9.0f} {spread:>14} {used or '-':>5}"
        )
    return "\n".join(lines)
