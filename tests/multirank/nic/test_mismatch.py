"""Sends and receives that do not fit: both sides say why, and the group goes on. Works that nobody keeps still deliver."""

import gc
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import MIB, Session, pattern

PAIRS = [(1, 5), (2, 3)]  # across hosts; inside one


def unequal(rank: Rank, sent: torch.Tensor, taken: torch.Tensor) -> dict[str, Any]:
    session = Session(rank, "hetsp")
    session.agree()
    said = ""
    for source, destination in PAIRS:
        try:
            if rank.rank == source:
                dist.send(sent, destination)
            elif rank.rank == destination:
                dist.recv(taken, source)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    session.agree()
    found = torch.zeros(MIB, dtype=torch.uint8)
    works = [dist.irecv(found, (rank.rank + 3) % 8), dist.isend(pattern(MIB, rank.rank), (rank.rank - 3) % 8)]
    for work in works:
        work.wait()
    session.agree()
    return {"said": said, "goes on": torch.equal(found, pattern(MIB, (rank.rank + 3) % 8))}


def told(hosts: Hosts, sent: torch.Tensor, taken: torch.Tensor) -> list[str]:
    with Run(hosts, unequal, sent, taken) as run:
        ranks = run.results()
    assert all(rank["goes on"] for rank in ranks)
    said = [rank["said"] for rank in ranks]
    assert [bool(each) for each in said] == [rank in {1, 5, 2, 3} for rank in range(8)], said
    return [said[rank] for pair in PAIRS for rank in pair]


@pytest.mark.parametrize(("sent", "taken"), [(1000, 2000), (2000, 1000), (3 * MIB, 2 * MIB), (MIB, 3 * MIB), (100, MIB)])
def test_sizes_that_differ(sent: int, taken: int, hosts: Hosts, hetsp: str) -> None:
    for each in told(hosts, torch.zeros(sent, dtype=torch.uint8), torch.zeros(taken, dtype=torch.uint8)):
        assert each.startswith("InvalidArgument"), each
        assert str(sent) in each, each
        assert str(taken) in each, each


@pytest.mark.parametrize("count", [100, MIB])
def test_types_that_differ(count: int, hosts: Hosts, hetsp: str) -> None:
    for each in told(hosts, torch.zeros(count, dtype=torch.float32), torch.zeros(count, dtype=torch.int32)):
        assert each.startswith("InvalidArgument"), each
        assert "float" in each.lower(), each
        assert "int" in each.lower(), each


def drop_works(rank: Rank) -> list[bool]:
    session = Session(rank, "hetsp")
    session.agree()
    sizes = [100, 40_000, 3 * MIB]
    if rank.rank == 0:
        for tag, size in enumerate(sizes):
            dist.isend(pattern(size, tag), 6, tag=tag)  # neither the Work nor the tensor is kept
        gc.collect()
        torch.zeros(4 * MIB, dtype=torch.uint8)  # would take the freed memory
    fine = []
    if rank.rank == 6:
        for tag, size in enumerate(sizes):
            found = torch.zeros(size, dtype=torch.uint8)
            dist.recv(found, 0, tag=tag)
            fine.append(torch.equal(found, pattern(size, tag)))
    session.agree()
    return fine


def test_a_dropped_work_still_delivers(hosts: Hosts, hetsp: str) -> None:
    with Run(hosts, drop_works) as run:
        assert run.results()[6] == [True, True, True]
