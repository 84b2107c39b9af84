"""How long this thread could have run, and did not, because other threads had the cores.

On a machine that others use as well, wall time is the work plus their turns. Linux counts the turns: the second field of
/proc/thread-self/schedstat is the nanoseconds that a thread spent ready, on a run queue. Waiting for a message is not in it.
"""

import os
import threading

__all__ = ["delay_seconds", "delays_are_known"]

PATH = "/proc/thread-self/schedstat"


class _Counter(threading.local):
    """The open file of the calling thread, which is what the path named when it was opened."""

    def __init__(self) -> None:
        try:
            self.file = os.open(PATH, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not Linux, or a kernel that does not count
            self.file = -1

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)


_counter = _Counter()


def delays_are_known() -> bool:
    """Whether this system counts them."""
    return _counter.file >= 0


def delay_seconds() -> float:
    """Seconds on a run queue since this thread began; 0 where they are not counted. Takes a microsecond."""
    return int(os.pread(_counter.file, 80, 0).split()[1]) * 1e-9 if _counter.file >= 0 else 0.0
