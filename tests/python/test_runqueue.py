"""Other threads' turns on the cores: what the kernel counts is time in which this thread did not run."""

import multiprocessing
import os
import threading
import time

import pytest

from hetsp_ext.runqueue import delay_seconds, delays_are_known

counted = pytest.mark.skipif(not delays_are_known(), reason="this kernel has no /proc/thread-self/schedstat")


def spin(seconds: float) -> tuple[float, float, float]:
    """(wall, own, delayed) seconds of a loop that does nothing but run; the first holds the other two."""
    wall, own, delayed = time.perf_counter(), time.thread_time(), delay_seconds()
    while time.perf_counter() - wall < seconds:
        pass
    own, delayed = time.thread_time() - own, delay_seconds() - delayed
    return time.perf_counter() - wall, own, delayed


def pinned_spin(core: int, ready: object, connection: object) -> None:
    os.sched_setaffinity(0, {core})
    ready.wait()
    connection.send(spin(0.3))


@counted
def test_delays_are_of_the_calling_thread_and_never_fall() -> None:
    first = delay_seconds()
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(delay_seconds()))
    thread.start()
    thread.join()
    assert found[0] >= 0.0
    assert delay_seconds() >= first
    wall, own, delayed = spin(0.05)
    assert own + delayed <= wall * 1.05 + 0.002  # the two exclude each other


@counted
def test_two_on_one_core_wait_for_each_other() -> None:
    context = multiprocessing.get_context("spawn")
    core, ready = min(os.sched_getaffinity(0)), context.Barrier(2)
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=pinned_spin, args=(core, ready, sender)) for _, sender in pipes]
    for process in processes:
        process.start()
    answers = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    assert sum(delayed for _, _, delayed in answers) > 0.01  # the core cannot run both
    for wall, own, delayed in answers:
        assert own + delayed <= wall * 1.05 + 0.002
