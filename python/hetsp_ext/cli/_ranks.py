"""Commands that run on several ranks: this process starts them, or it is one of them."""

import logging
import os
import time
from collections.abc import Callable, Sequence

from ..errors import HetspError, InvalidArgument, PeerLost

__all__ = ["run_on_ranks"]

# A rank that fails beside others waits this long before it says so. If it failed only because another one did, it is stopped
# meanwhile, and the cause is told alone.
SECONDS_FOR_THE_CAUSE = 10.0


def run_on_ranks(argv: Sequence[str], ranks: int, check: Callable[[], None], job: Callable[[int], None]) -> int:
    """Runs `job(rank)` if this process is a rank; else `hetsp argv` in `ranks` processes, each of which comes here again.

    `check` finds a wrong request before any rank starts, so that it is told once and at once.
    """
    from ..train.ranks import is_rank

    if is_rank():
        return run_one(job)
    from ..train.launcher import launch

    check()
    return launch(argv, ranks)


def run_one(job: Callable[[int], None]) -> int:
    from ..train.launcher import end_with_launcher, is_launched

    end_with_launcher()
    rank = rank_of_environment()
    logging.basicConfig(format=f"rank {rank}: %(message)s", level=logging.WARNING)
    logging.getLogger("hetsp").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    try:
        job(rank)
    except HetspError as error:
        if rank != 0 or isinstance(error, PeerLost):
            time.sleep(SECONDS_FOR_THE_CAUSE)
        raise
    except KeyboardInterrupt:
        if is_launched():
            return 130  # the launcher says it, once for all of its ranks
        raise
    return 0


def rank_of_environment() -> int:
    """RANK, once all is there that torchrun sets. Raises InvalidArgument naming what is not."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not os.environ.get(name, "").isdecimal():
            given = repr(os.environ[name]) if name in os.environ else "not set"
            raise InvalidArgument(
                f"the environment's {name} is {given}; with RANK and WORLD_SIZE set, a whole number is needed"
            )
    if not os.environ.get("MASTER_ADDR"):
        raise InvalidArgument("the environment's MASTER_ADDR is not set; with RANK and WORLD_SIZE set, a host is needed")
    return int(os.environ["RANK"])
