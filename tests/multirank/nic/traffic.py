"""What the ranks do in tests and benchmarks of the NICs: messages of known bytes, compared byte for byte, and timed.

A rank's traffic runs over a group of the backend in question; what the ranks agree on goes over a Gloo group on the control
network, which no fault touches. Times are of time.monotonic, one clock for all processes of a machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tests.multirank.nic.run import Rank

MIB = 1 << 20


@dataclass(frozen=True)
class Message:
    source: int
    destination: int
    bytes: int
    tag: int = 0


def hot_pair(size: int) -> list[Message]:
    return [Message(0, 4, size)]


def ring(size: int, ranks: int = 8) -> list[Message]:
    """Everyone to the next: two of the pairs cross hosts, one in each direction."""
    return [Message(rank, (rank + 1) % ranks, size) for rank in range(ranks)]


def flows(sizes: Sequence[int]) -> list[Message]:
    """Rank i of the first host to rank i of the second."""
    return [Message(index, 4 + index, size) for index, size in enumerate(sizes)]


def pattern(size: int, *seed: int) -> torch.Tensor:
    """Random bytes that only this seed gives."""
    value = 0
    for part in seed:
        value = (value * 1_000_003 + part + 1) % (1 << 61)
    words = torch.empty(size // 8 + 1, dtype=torch.int64)
    words.random_(generator=torch.Generator().manual_seed(value))
    return words.view(torch.uint8)[:size]


def why_no_backend(name: str) -> str | None:
    """What keeps `dist.init_process_group` from using this backend here."""
    from hetsp_ext.distributed.backend import missing

    if name == "hetsp" and (reason := missing()):
        return f"backend hetsp is not here: {reason}"
    return None if name in dist.Backend.backend_list else f"backend {name} is not registered"


class Session:
    """A rank's groups: `group` of the backend under test, `control` on the control network."""

    def __init__(self, rank: Rank, backend: str, seconds: float = 60.0) -> None:
        import hetsp_ext  # noqa: F401  registers the backend

        self.rank, self.backend = rank, backend
        timeout = timedelta(seconds=seconds)
        nic = os.environ["GLOO_SOCKET_IFNAME"]
        begin = time.monotonic()
        dist.init_process_group(f"cpu:{backend}", rank=rank.rank, world_size=rank.size, timeout=timeout)
        self.group = dist.group.WORLD
        self.forming_seconds = time.monotonic() - begin
        os.environ["GLOO_SOCKET_IFNAME"] = "mgmt"  # read by Gloo when a group is made
        self.control = dist.new_group(backend="gloo", timeout=timeout)
        os.environ["GLOO_SOCKET_IFNAME"] = nic

    def agree(self) -> None:
        """Until every rank is here."""
        dist.barrier(group=self.control)

    def one_nic(self) -> dist.ProcessGroup:
        """A plain Gloo group, each rank on its own NIC: what routing is compared with."""
        return dist.new_group(backend="gloo", timeout=timedelta(seconds=60))

    def statistics(self) -> Mapping[str, Any]:
        if self.backend != "hetsp":
            return {}
        import hetsp_ext as hetsp

        return hetsp.distributed.statistics(self.group)


def exchange(
    session: Session,
    messages: Sequence[Message],
    seed: int,
    group: dist.ProcessGroup | None = None,
    begun: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """All messages at once; when this rank began and when each of its messages was through, and those with wrong bytes.

    `begun` is called when every rank has its bytes ready, just before the first is sent.
    """
    own = session.rank.rank
    out = [(each, pattern(each.bytes, seed, index)) for index, each in enumerate(messages) if each.source == own]
    expected = [(each, pattern(each.bytes, seed, index)) for index, each in enumerate(messages) if each.destination == own]
    found = [torch.zeros(each.bytes, dtype=torch.uint8) for each, _ in expected]
    session.agree()
    if begun is not None:
        begun()
    begin = time.monotonic()
    works = [
        (each, dist.irecv(tensor, each.source, group=group, tag=each.tag))
        for (each, _), tensor in zip(expected, found, strict=True)
    ]
    works += [(each, dist.isend(tensor, each.destination, group=group, tag=each.tag)) for each, tensor in out]
    ends = []
    for each, work in works:
        work.wait()
        ends.append((each, time.monotonic()))
    session.agree()  # comparing, and preparing what is next, takes processors that others still need
    wrong = [each for (each, bytes_), tensor in zip(expected, found, strict=True) if not torch.equal(bytes_, tensor)]
    return {"begin": begin, "ends": ends, "wrong": wrong}


def exchanges(rank: Rank, backend: str, jobs: Sequence[Sequence[Message]], rounds: int = 1) -> dict[str, Any]:
    """Each job in turn, `rounds` times."""
    session = Session(rank, backend)
    done = [exchange(session, messages, 1000 * turn + index) for turn in range(rounds) for index, messages in enumerate(jobs)]
    session.agree()
    return {"jobs": done, "statistics": session.statistics(), "forming": session.forming_seconds}


def seconds_of(ranks: Sequence[Mapping[str, Any]], job: int) -> float:
    """From the first rank's begin to the last message's end."""
    jobs = [each["jobs"][job] for each in ranks]
    return max(end for each in jobs for _, end in each["ends"]) - min(each["begin"] for each in jobs)


def wrong_of(ranks: Sequence[Mapping[str, Any]]) -> list[Message]:
    return [message for rank in ranks for job in rank["jobs"] for message in job["wrong"]]
