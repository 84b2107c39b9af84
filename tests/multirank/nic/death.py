"""What ranks are in the middle of when one of them is killed."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from tests.multirank.nic.run import Rank
from tests.multirank.nic.traffic import MIB, Session, pattern

SIZE = 160 * MIB


def blame(error: BaseException) -> dict[str, Any]:
    return {"type": type(error).__name__, "text": str(error), "time": time.monotonic()}


def lose_a_rank(rank: Rank, how: str) -> dict[str, Any]:
    """Every rank waits in one call that cannot end by itself, or in a ring that takes far longer than the test waits."""
    session = Session(rank, "hetsp")
    own, after = rank.rank, (rank.rank + 1) % rank.size
    given, taken = pattern(SIZE, own), torch.zeros(SIZE, dtype=torch.uint8)
    session.agree()
    rank.say("started")
    try:
        if how == "recv":
            dist.recv(torch.zeros(8, dtype=torch.uint8), (own + 3) % rank.size, tag=7)
        elif how == "send":
            dist.send(given[:MIB], after, tag=1)  # whose receiver has posted nothing
        else:
            works = [dist.irecv(taken, (own - 1) % rank.size, tag=1), dist.isend(given, after, tag=1)]
            for work in works:
                work.wait()
            dist.recv(taken[:8], (own - 1) % rank.size, tag=7)  # messages inside a host may be through before the kill
    except Exception as error:
        return blame(error)
    return {"type": "none"}
