"""Rails that break by themselves, on loopback: without root, without namespaces. A rank shuts its own connections down."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from tests.support.hetsp_groups import needs_extension, new_group
from tests.support.ranks import run_ranks

pytestmark = needs_extension

RANKS_OF_A_NODE = 2


def break_rail(rail: int) -> int:
    """Ends this process's connections over a rail: whoever dialled, one end is a NIC of hetsp_groups.topology."""
    ends = {f"127.0.{node}.{rail + 1}" for node in (1, 2)}
    broken = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed meanwhile, or no socket
            continue
        with copy:
            try:
                if ends & {copy.getsockname()[0], copy.getpeername()[0]}:
                    copy.shutdown(socket.SHUT_RDWR)
                    broken += 1
            except (OSError, TypeError, IndexError):  # not connected, or not of the internet
                continue
    return broken


def message(seed: int, sender: int, number: int) -> torch.Tensor:
    draw = random.Random(f"{seed} {sender} {number}")
    size = draw.choice([1, 100, 10_000, 100_000, 1_000_000])
    return torch.arange(size, dtype=torch.int32) * 7 + draw.randrange(1 << 20)


def exchange(rank: int, size: int, seed: int, breaks: int) -> dict[str, Any]:
    group = new_group(RANKS_OF_A_NODE, RANKS_OF_A_NODE, chunk_bytes=64 * 1024, direct_bytes=64 * 1024)
    draw = random.Random(f"{seed} {rank}")
    over = threading.Event()
    broken = 0

    def fault() -> None:
        nonlocal broken
        while broken < breaks and not over.wait(draw.uniform(0.05, 0.3)):
            broken += break_rail(rank % RANKS_OF_A_NODE)

    breaking = threading.Thread(target=fault)
    breaking.start()
    peer = (rank + RANKS_OF_A_NODE) % size
    wrong, number = [], 0
    # Until every rank has had its breaks: all go on for as long as one is not through.
    while True:
        expected = message(seed, peer, number)
        got = torch.empty_like(expected)
        works = [dist.irecv(got, peer, group=group), dist.isend(message(seed, rank, number), peer, group=group)]
        for work in works:
            work.wait()
        if not torch.equal(got, expected):
            wrong.append(number)
        number += 1
        still = torch.tensor([0 if broken >= breaks else 1])
        dist.all_reduce(still, group=group)
        if still.item() == 0:
            break
    over.set()
    breaking.join()
    deadline = time.monotonic() + 20
    while (down := hetsp.distributed.statistics(group)["lanes_down"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    statistics = hetsp.distributed.statistics(group)
    dist.barrier(group=group)
    dist.destroy_process_group(group)
    lane = statistics["lanes"][0]
    return {"wrong": wrong, "broken": broken, "down": down, "times_down": lane["times_down"], "generation": lane["generation"]}


@pytest.mark.parametrize("seed", [0, 1])
def test_rails_that_break_while_messages_pass_cost_no_byte_and_come_back(seed):
    breaks = 4
    results = run_ranks(2 * RANKS_OF_A_NODE, exchange, seed, breaks)
    for rank, result in enumerate(results):
        assert result["wrong"] == [], f"rank {rank}"
        assert result["broken"] >= breaks
        assert result["down"] == 0, f"rank {rank}: a rail has not come back within 20 s"
        assert result["times_down"] >= 1, f"rank {rank}: {result}"
        assert result["generation"] >= 2, f"rank {rank}: {result}"


def half_formed(rank: int, size: int, deaf: int) -> list[tuple[bool, int]]:
    """Rank `deaf` and its peer have built a rail, and only the peer hears of it: it alone begins with that rail."""
    from hetsp_ext.distributed.lanes import PairStore

    real, lost = PairStore.get, []

    def get(store: PairStore, key: str) -> bytes:
        value = real(store, key)
        if key.startswith("built/") and not lost:
            lost.append(key)
            raise TimeoutError("timed out")
        return value

    if rank == deaf:
        PairStore.get = get
    group = new_group(RANKS_OF_A_NODE, RANKS_OF_A_NODE, chunk_bytes=64 * 1024, direct_bytes=64 * 1024)
    peer = (rank + RANKS_OF_A_NODE) % size
    deadline = time.monotonic() + 20
    for number in range(1_000_000):
        expected = message(7, peer, number)
        got = torch.empty_like(expected)
        works = [dist.irecv(got, peer, group=group), dist.isend(message(7, rank, number), peer, group=group)]
        for work in works:
            work.wait()
        assert torch.equal(got, expected), number
        down = torch.tensor([hetsp.distributed.statistics(group)["lanes_down"]])
        dist.all_reduce(down, group=group)
        if number >= 5 and (down.item() == 0 or time.monotonic() > deadline):
            break
    lanes = hetsp.distributed.statistics(group)["lanes"]
    dist.barrier(group=group)
    dist.destroy_process_group(group)
    assert (lost != []) == (rank == deaf)
    return [(lane["up"], lane["generation"]) for lane in lanes]


@pytest.mark.parametrize("deaf", [0, 2])
def test_a_rail_that_one_end_alone_took_for_formed_is_formed_again(deaf):
    for rank, lanes in enumerate(run_ranks(2 * RANKS_OF_A_NODE, half_formed, deaf)):
        assert lanes == [(True, 2 if rank % RANKS_OF_A_NODE == 0 else 1)], f"rank {rank}"
