"""How groups of backend hetsp end: in peace, by a rank's death, by neglect; nothing is left behind and nobody hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

from hetsp_ext.errors import PeerLost
from tests.support.hetsp_groups import needs_extension, new_group
from tests.support.ranks import run_ranks

pytestmark = needs_extension

WAYS = ["recv", "wait", "future", "isend", "collective", "functional", "batch", "any source"]


def attempt(way: str, group: dist.ProcessGroup) -> None:
    """An operation that rank 2 never answers."""
    out, large = torch.zeros(10), torch.zeros(1_000_000)
    if way == "recv":
        dist.recv(out, 2, group=group)
    elif way == "wait":
        dist.irecv(out, 2, group=group).wait()
    elif way == "future":
        dist.irecv(out, 2, group=group).get_future().wait()
    elif way == "isend":
        dist.isend(large, 2, group=group).wait()
    elif way == "collective":
        dist.all_reduce(large, group=group)
    elif way == "functional":
        functional.wait_tensor(functional.all_reduce(large, "sum", group))
    elif way == "any source":
        dist.recv(out, group=group)
    else:
        works = dist.batch_isend_irecv([dist.P2POp(dist.irecv, out, 2, group=group)])
        works[0].wait()


def death(rank: int, size: int, way: str, path: str) -> tuple[str, float]:
    group = new_group(2, 2)
    pid = Path(path)
    if rank == 2:
        pid.write_text(str(os.getpid()))
        time.sleep(60)
    if rank == 0:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
    begun = pid.with_name(f"begun{rank}")
    begun.touch()
    if rank == 0:
        while not all(pid.with_name(f"begun{other}").exists() for other in (1, 3)):
            time.sleep(0.01)
        os.kill(int(pid.read_text()), signal.SIGKILL)
    with pytest.raises(PeerLost, match=r"^rank 2 ") as caught:
        attempt(way, group)
    assert type(caught.value) is PeerLost
    begin = time.monotonic()
    with pytest.raises(PeerLost, match=r"^rank 2 "):  # later ones fail at once
        dist.send(torch.zeros(1_000_000), 2, group=group)
    late = time.monotonic() - begin
    dist.destroy_process_group(group)
    raise Survived(str(caught.value), late)


class Survived(Exception):
    """Brings what a survivor saw past the barrier at the end, which the dead rank cannot reach."""


@pytest.mark.parametrize("way", WAYS)
def test_a_death_is_raised_itself_and_names_the_rank(way, tmp_path):
    outcomes = run_ranks(4, death, way, str(tmp_path / "pid"), outcomes=True)
    assert outcomes[2] is None
    for survivor in (outcomes[0], outcomes[1], outcomes[3]):
        assert type(survivor) is Survived, survivor


def left_behind(rank: int, size: int) -> list[tuple[int, int]]:
    counts = []
    for turn in range(6):
        group = new_group(1, 2)
        x = torch.ones(100_000)
        dist.all_reduce(x, group=group)
        assert bool((x == 3).all())
        if turn % 2:
            dist.irecv(torch.zeros(5), (rank + 1) % size, group=group)  # never matched
        dist.destroy_process_group(group)
        del group
        dist.barrier()
        counts.append((len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))))
    return counts


def test_no_thread_and_no_socket_is_left():
    for counts in run_ranks(3, left_behind):
        assert counts[1] == counts[-1], counts


def leaving(rank: int, size: int) -> None:
    group = new_group(1, 2)
    if rank == 0:
        dist.destroy_process_group(group)
    elif rank == 1:
        with pytest.raises((PeerLost, RuntimeError), match="rank 0"):
            dist.recv(torch.zeros(3), 0, group=group)
        dist.send(torch.ones(3), 2, group=group)
    else:
        out = torch.zeros(3)
        dist.recv(out, 1, group=group)  # the others go on
        assert bool((out == 1).all())
    dist.barrier()


def test_a_rank_may_leave_in_peace():
    run_ranks(3, leaving)


def leaving_before_a_collective(rank: int, size: int, elements: int) -> None:
    group = new_group(1, 1)
    if rank == 0:
        with pytest.raises(PeerLost, match=r"^rank 1 left the group"):
            dist.all_reduce(torch.ones(elements), group=group)
    dist.destroy_process_group(group)


@pytest.mark.parametrize("elements", [0, 3, 1_000_000])
def test_a_rank_that_leaves_is_named_by_the_collective_of_the_other(elements: int) -> None:
    run_ranks(2, leaving_before_a_collective, elements)


def staying(rank: int, size: int) -> str:
    """Ranks 0 and 2 drive the only NIC of their node, and are through long before the others."""
    group = new_group(2, 2, nics=1)
    told = ""
    if rank in (1, 3):
        for turn in range(65):  # those who wait for all to come wait 5 s
            x = torch.full((300_000,), float(turn))
            if rank == 1:
                dist.send(x, 3, group=group)
            else:
                found = torch.zeros_like(x)
                dist.recv(found, 1, group=group)
                assert torch.equal(found, x)
            time.sleep(0.1)
    if rank == 1:
        with pytest.raises(PeerLost) as caught:
            dist.recv(torch.zeros(3), 0, group=group)
        told = str(caught.value)
    dist.destroy_process_group(group)
    return told


def test_who_leaves_early_carries_on_for_those_without_a_nic():
    assert run_ranks(4, staying)[1] == "rank 0 left the group (receiving from rank 0, no transfer begun, inside the node)"


NEGLECT = """
import sys, torch, torch.distributed as dist
import hetsp_ext
rank = int(sys.argv[1])
dist.init_process_group("cpu:hetsp", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
work = dist.irecv(torch.zeros(5), 1 - rank)
x = torch.ones(4)
dist.all_reduce(x)
assert bool((x == 2).all())
"""


def test_a_group_that_nobody_destroys_ends_with_python(tmp_path):
    command = [sys.executable, "-c", NEGLECT]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
