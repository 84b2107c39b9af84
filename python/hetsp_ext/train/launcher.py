"""Starts the ranks of a run on this machine through torch's own elastic agent, and says which one failed."""

import ctypes
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import InvalidArgument, PeerLost
from .ranks import threads_per_rank

__all__ = ["end_with_launcher", "is_launched", "launch"]

LAUNCHER = "HETSP_LAUNCHER"  # tells the ranks whose children they are
PR_SET_PDEATHSIG = 1  # of prctl(2)
# Exit statuses of hetsp_ext.cli that need no second line: a wrong request, which was told; nobody reads the output any more.
SAID = (2, 141)
# Seconds between the agent's looks at its processes: how soon the others stop when one dies.
MONITOR_SECONDS = 0.1
MOST_RANKS = 1024  # of this machine: a slip of the keyboard must not fill its memory
# Read by glibc; other C libraries ignore it. Its default gives large freed blocks back to the system, which maps and clears
# their pages again in every step: 43 000 page faults and 8 to 16 % of the time of a step of 16384 tokens a rank (model `tiny`,
# CPU time, 2 cores of an EPYC), and so a token costs more in a large step than in a small one. 32 MiB is the most that glibc
# accepts as the size from which a block is mapped on its own.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}


@dataclass(frozen=True)
class Failure:
    rank: int
    exit_status: int  # negative: the signal that ended it
    time: int  # seconds since the epoch


def launch(argv: Sequence[str], ranks: int) -> int:
    """Runs `hetsp argv` in `ranks` processes and returns the exit status of the run.

    When one process fails the others are stopped, and one line on stderr names the rank that failed first, unless
    there is nothing to add (SAID).
    """
    if ranks > MOST_RANKS:
        raise InvalidArgument(f"--ranks is {ranks}; at most {MOST_RANKS} processes are started on one machine")
    # Read by libraries in the children as they load, so it cannot be passed down in any other way.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_per_rank(ranks)))
    os.environ[LAUNCHER] = str(os.getpid())
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    if sys.platform == "linux":  # Gloo asks for the host's name otherwise, which need not resolve
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # its report is ours, in one line
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "hetsp_ext", *argv)
    except ChildFailedError as error:
        failure = first_failure([Failure(rank, each.exitcode, each.timestamp) for rank, each in error.failures.items()])
        if failure.exit_status in SAID:
            return failure.exit_status
        print(f"hetsp {argv[0]}: error: {describe(failure)}; the other ranks were stopped", file=sys.stderr)
        return 1
    except SignalException as error:  # sent to this process; the agent has stopped the ranks
        name = signal.Signals(error.sigval).name
        print(f"hetsp {argv[0]}: stopped by {name}, and all ranks with it", file=sys.stderr)
        return 128 + error.sigval
    return 0


def is_launched() -> bool:
    """Whether `launch` has started this process, and not a torchrun of the user's."""
    return os.environ.get(LAUNCHER) == str(os.getppid())


def end_with_launcher() -> None:
    """A rank calls this: when the launcher is killed, the kernel kills the rank too.

    Nobody would stop it otherwise (it leads a session of its own), and it would hold devices and the folder of its checkpoints
    against the run that is to go on. Does nothing for ranks that `launch` has not started.
    """
    launcher = str(os.getppid())
    if sys.platform != "linux" or not is_launched():
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if str(os.getppid()) != launcher:
        raise PeerLost(f"the launcher, process {launcher}, is gone")  # before the kernel was told


def first_failure(failures: Sequence[Failure]) -> Failure:
    """The cause among failures noticed together: a rank ended from outside, or one that said why, or the earliest."""

    def order(failure: Failure) -> tuple[int, int, int]:
        if failure.exit_status == -signal.SIGTERM:  # most likely from the agent itself
            kind = 3
        elif failure.exit_status < 0:
            kind = 0
        else:
            kind = 1 if failure.exit_status in SAID else 2
        return kind, failure.time, failure.rank

    return min(failures, key=order)


def describe(failure: Failure) -> str:
    if failure.exit_status >= 0:
        return f"rank {failure.rank} stopped with exit status {failure.exit_status}"
    try:
        name = signal.Signals(-failure.exit_status).name
    except ValueError:
        name = f"signal {-failure.exit_status}"
    return f"rank {failure.rank} died: killed by {name}"
