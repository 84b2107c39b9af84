"""Ranks of a node over shared memory: it is used, or the reason is told; deaths, stops and children hide nothing."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument, PeerLost
from tests.support.hetsp_groups import needs_extension, new_group
from tests.support.ranks import run_ranks

pytestmark = needs_extension


def pattern(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def traffic(group: Any, rank: int, size: int, seed: int) -> None:
    """Messages of all sizes between all ranks, compared; the larger ones overlap the smaller."""
    sizes = [0, 1, 100, 32768, 32769, 262144, 262145, 3_000_001]
    works, found = [], []
    for peer in range(size):
        if peer == rank:
            continue
        for tag, count in enumerate(sizes):
            room = torch.zeros(count, dtype=torch.uint8)
            found.append((room, pattern(count, seed + 1000 * peer + 10 * rank + tag)))
            works.append(dist.irecv(room, peer, group=group, tag=tag))
            works.append(dist.isend(pattern(count, seed + 1000 * rank + 10 * peer + tag), peer, group=group, tag=tag))
    for work in works:
        work.wait()
    assert all(torch.equal(room, expected) for room, expected in found)


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:hetsp")


def used(rank: int, size: int, turns: int) -> list[tuple[int, int, int]]:
    seen = []
    for turn in range(turns):
        group = new_group(chunk_bytes=[0, 4096, 65536][turn % 3])
        assert hetsp.distributed.statistics(group)["inside"] == "shared memory"
        traffic(group, rank, size, 7 * turn)
        during = mappings()
        dist.destroy_process_group(group)
        dist.barrier()
        seen.append((during, mappings(), len(os.listdir("/proc/self/fd"))))
    return seen


def test_memory_is_shared_and_nothing_of_it_is_left() -> None:
    for seen in run_ranks(4, used, 6):
        assert all(during == 4 and after == 0 for during, after, _ in seen), seen
        assert seen[1][2] == seen[-1][2], seen  # descriptors


def told_not_to(rank: int, size: int, how: str) -> str:
    if how == "option":
        group = new_group(2, 2, shared_memory=rank != 1)
    else:
        if rank == 1:
            os.environ["HETSP_SHARED_MEMORY"] = "0"
        group = new_group(2, 2)
    traffic(group, rank, size, 3)
    inside = str(hetsp.distributed.statistics(group)["inside"])
    dist.destroy_process_group(group)
    return inside


@pytest.mark.parametrize("how", ["option", "environment"])
def test_one_rank_that_may_not_keeps_its_node_on_loopback_and_no_other(how: str) -> None:
    inside = run_ranks(4, told_not_to, how)
    assert inside[0] == inside[1]
    assert inside[0].startswith("loopback: rank 1 was told not to")
    assert inside[2:] == ["shared memory"] * 2


def refuse_memfd(segment: int) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    os.memfd_create = refused  # as a container's seccomp filter does


def limit_files(segment: int) -> None:
    """No file, not even an anonymous one, may be as large as a segment."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment // 2, resource.RLIM_INFINITY))


def limit_addresses(segment: int) -> None:
    """The segments of two ranks can be mapped, those of three cannot."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 5 * segment // 2, resource.RLIM_INFINITY))


REFUSALS = {
    "memfd": (refuse_memfd, "no shared memory on rank 1: [Errno 1] Operation not permitted"),
    "file size": (limit_files, "no shared memory on rank 1: [Errno 27] File too large"),
    "address space": (limit_addresses, "rank 1 does not share memory: [Errno 12] Cannot allocate memory"),
}


def refused(rank: int, size: int, how: str) -> tuple[str, int]:
    from hetsp_ext._c10d import shared_bytes

    chunk_bytes = 16 << 20  # segments that are large beside what threads take
    if rank == 1:
        REFUSALS[how][0](shared_bytes(chunk_bytes, 3, False))
    group = new_group(3, 1, chunk_bytes=chunk_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)  # loopback takes more of it than these messages need
    traffic(group, rank, size, 4)
    inside, left = str(hetsp.distributed.statistics(group)["inside"]), mappings()
    dist.destroy_process_group(group)
    return inside, left


@pytest.mark.parametrize("how", REFUSALS)
def test_a_machine_that_refuses_one_rank_keeps_its_node_on_loopback_and_says_why(how: str) -> None:
    seen = run_ranks(4, refused, how)
    assert seen[:3] == [(f"loopback: {REFUSALS[how][1]}", 0)] * 3


def not_a_bool(rank: int, size: int) -> None:
    with pytest.raises(InvalidArgument, match="shared_memory is 'yes'"):
        new_group(shared_memory="yes")


def test_the_option_is_checked() -> None:
    run_ranks(2, not_a_bool)


class Survived(Exception):
    """Brings what a survivor saw past the barrier at the end, which the dead rank cannot reach."""


def killed(rank: int, size: int, path: str, seed: int) -> None:
    """Rank 2 is killed while everybody sends to everybody; a child of it lives on, with its sockets."""
    group = new_group()
    pid = Path(path)
    if rank == 2:
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        pid.with_name("child").write_text(str(child))
        pid.write_text(str(os.getpid()))
    at: float | None = None
    try:
        for turn in range(100_000):
            if rank == 0 and turn == 3 + seed:
                while not (pid.exists() and pid.read_text()):
                    time.sleep(0.01)
                time.sleep(0.001 * seed)
                at = time.time()
                pid.with_name("at").write_text(str(at))
                os.kill(int(pid.read_text()), signal.SIGKILL)
            traffic(group, rank, size, turn)
    except PeerLost as error:
        learnt = time.time()
        begun = time.monotonic()
        dist.destroy_process_group(group)
        raise Survived(str(error), learnt - float(pid.with_name("at").read_text()), time.monotonic() - begun) from error


@pytest.mark.parametrize("seed", range(3))
def test_a_rank_killed_while_it_copies_is_named_and_nobody_hangs(seed: int, tmp_path: Path) -> None:
    outcomes = run_ranks(4, killed, str(tmp_path / "pid"), seed, outcomes=True)
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert outcomes[2] is None
    for survivor in (outcomes[0], outcomes[1], outcomes[3]):
        assert type(survivor) is Survived, survivor
        text, learnt, ended = survivor.args
        assert text.startswith("rank 2 "), text
        assert learnt < 10, survivor  # of the 20 s that the child holds the sockets
        assert ended < 10, survivor


def stopped(rank: int, size: int, path: str) -> None:
    group = new_group()
    folder = Path(path)
    folder.joinpath(str(rank)).write_text(str(os.getpid()))
    for turn in range(30):
        traffic(group, rank, size, turn)
        if rank == 0 and turn in (3, 9):
            other = int(folder.joinpath("1").read_text())
            os.kill(other, signal.SIGSTOP)
            if os.fork() == 0:  # wakes it while rank 0 waits for it
                time.sleep(1.5)
                os.kill(other, signal.SIGCONT)
                os._exit(0)
    dist.destroy_process_group(group)


def test_a_stopped_rank_is_not_dead(tmp_path: Path) -> None:
    run_ranks(3, stopped, str(tmp_path))


def crowded(rank: int, size: int) -> None:
    """One receiver that is slow to post: its neighbours' messages wait, their small ones to others do not."""
    group = new_group(chunk_bytes=4096)
    count = 5_000_000
    if rank == 0:
        time.sleep(0.5)
        for peer in (1, 2):
            for tag in range(4):
                found = torch.zeros(count, dtype=torch.uint8)
                dist.recv(found, peer, group=group, tag=tag)
                assert torch.equal(found, pattern(count, 10 * peer + tag))
    else:
        works = [dist.isend(pattern(count, 10 * rank + tag), 0, group=group, tag=tag) for tag in range(4)]
        small = torch.zeros(1)
        for turn in range(50):
            if rank == 1:
                dist.send(torch.tensor([float(turn)]), 2, group=group, tag=9)
            else:
                dist.recv(small, 1, group=group, tag=9)
                assert small.item() == turn
        for work in works:
            work.wait()
    dist.destroy_process_group(group)


def test_messages_that_nobody_takes_hold_up_no_others() -> None:
    run_ranks(3, crowded)
