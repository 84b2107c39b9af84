"""Traffic while NICs fail: what the ranks do, and what their group says of its rails afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from tests.multirank.nic.run import Rank
from tests.multirank.nic.traffic import MIB, Message, Session, exchange, ring


def rail_of(statistics: Mapping[str, Any], nic: int) -> Mapping[str, Any]:
    """What a rank says of its rail over this NIC; {} of one that belongs to another rank."""
    return next((rail for rail in statistics["lanes"] if rail["rail"] == nic), {})


def carried(statistics: Mapping[str, Any]) -> int:
    return sum(rail["bytes_sent"] + rail["bytes_received"] for rail in statistics["lanes"])


class Watch(threading.Thread):
    """Looks at this rank's rails every 10 ms; `down_at`: when each was first seen down."""

    def __init__(self, session: Session) -> None:
        super().__init__(daemon=True)
        self.session, self.down_at = session, {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.01):
            for rail in self.session.statistics()["lanes"]:
                if not rail["up"]:
                    self.down_at.setdefault(rail["rail"], time.monotonic())


def under_fault(
    rank: Rank, backend: str, before: Sequence[Message], during: Sequence[Message], after: int, heals: bool = True
) -> dict[str, Any]:
    """A healthy exchange, one that the test disturbs, `after` more like it; once healed, until every rail carries again.

    The test hears "started" and disturbs; hears "through", heals, and says "healed" with the time.
    """
    session = Session(rank, backend)
    jobs = [exchange(session, before, 0)]
    watch = Watch(session)
    watch.start()
    jobs.append(exchange(session, during, 1, begun=lambda: rank.say("started")))
    jobs += [exchange(session, during, 2 + turn) for turn in range(after)]
    session.agree()  # a rank that relays for others is through with its own messages at once
    watch.ended.set()
    watch.join()
    found: dict[str, Any] = {"jobs": jobs, "faulted": session.statistics(), "down_at": watch.down_at}
    rank.say("through")
    if heals:
        found["back"] = until_all_carry(session, jobs, rank.wait("healed"))
        found["healed"] = session.statistics()
    session.agree()
    return found


def until_all_carry(session: Session, jobs: list[dict[str, Any]], healed: float, seconds: float = 20.0) -> float:
    """Seconds after healing at which every rank's rails had carried new bytes; infinite if they never did."""
    begin = carried(session.statistics())
    while True:
        jobs.append(exchange(session, ring(4 * MIB), 500 + len(jobs)))
        all_up = all(rail["up"] for rail in session.statistics()["lanes"])
        missing = torch.tensor([carried(session.statistics()) == begin or not all_up], dtype=torch.int64)
        dist.all_reduce(missing, group=session.control)
        now = torch.tensor([time.monotonic() - healed], dtype=torch.float64)
        dist.broadcast(now, 0, group=session.control)  # one clock, one decision
        if not missing.item() or now.item() > seconds:
            return now.item() if not missing.item() else float("inf")


def resent(ranks: Sequence[Mapping[str, Any]], key: str = "faulted") -> int:
    return sum(rank[key]["chunks_resent"] for rank in ranks)
