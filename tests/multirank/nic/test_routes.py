"""Which NICs carry a message: all of them for a hot pair, its own for a small one, each its own when all are busy."""

import pytest
import torch
import torch.distributed as dist

from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import MIB, Message, Session, exchanges, flows, hot_pair, pattern, ring, wrong_of

CHUNK = 256 * 1024  # bytes


def sent_by_nic(ranks: list[dict], host: int) -> list[int]:
    """Bytes that left this host over each of its NICs."""
    rails = [rail for rank in ranks[4 * host : 4 * host + 4] for rail in rank["statistics"]["lanes"]]
    return [sum(rail["bytes_sent"] for rail in rails if rail["rail"] == nic) for nic in range(4)]


def run(hosts: Hosts, backend: str, jobs: list[list[Message]]) -> list[dict]:
    with Run(hosts, exchanges, backend, jobs) as started:
        ranks = started.results()
    assert wrong_of(ranks) == []
    return ranks


def test_a_hot_pair_uses_every_nic(hosts: Hosts, hetsp: str) -> None:
    size = 32 * MIB
    ranks = run(hosts, hetsp, [hot_pair(size)])
    sent = sent_by_nic(ranks, 0)
    assert sum(sent) >= size
    assert min(sent) >= 0.15 * size, f"bytes over each NIC: {sent}"
    assert ranks[0]["statistics"]["routes"]["spread"] == 1


@pytest.mark.parametrize("size", [1, 32 * 1024, 256 * 1024 - 1])
def test_a_small_message_goes_directly(size: int, hosts: Hosts, hetsp: str) -> None:
    ranks = run(hosts, hetsp, [[Message(1, 5, size, tag) for tag in range(8)]])
    assert ranks[1]["statistics"]["routes"]["spread"] == 0
    assert ranks[1]["statistics"]["routes"]["direct"] + ranks[1]["statistics"]["routes"]["eager"] == 8
    sent = sent_by_nic(ranks, 0)
    assert sent[1] >= 8 * size
    assert sent[0] + sent[2] + sent[3] <= 64 * 1024, f"bytes over each NIC: {sent}"


def test_a_ring_uses_every_nic_in_both_directions(hosts: Hosts, hetsp: str) -> None:
    size = 16 * MIB
    ranks = run(hosts, hetsp, [ring(size)])
    for host in (0, 1):
        sent = sent_by_nic(ranks, host)
        assert min(sent) >= 0.15 * size, f"bytes over each NIC of host {host}: {sent}"


def test_four_flows_mostly_keep_to_their_own_nic(hosts: Hosts, hetsp: str) -> None:
    """Room is lent only by those who have not begun or are through, and never makes one NIC carry more than another."""
    size = 32 * MIB
    ranks = run(hosts, hetsp, [flows([size] * 4)])
    relayed = sum(rank["statistics"]["chunks_relayed"] for rank in ranks)
    sent = sent_by_nic(ranks, 0)
    assert relayed * CHUNK <= 0.5 * 4 * size, f"{relayed} chunks relayed, bytes over each NIC: {sent}"
    assert all(0.8 * size <= each <= 1.2 * size for each in sent), sent


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_flows_than_nics_share_them_all(count: int, hosts: Hosts, hetsp: str) -> None:
    size = 16 * MIB
    sent = sent_by_nic(run(hosts, hetsp, [flows([size] * count)]), 0)
    assert min(sent) >= 0.12 * count * size, f"bytes over each NIC: {sent}"


def test_messages_inside_a_host_touch_no_nic(hosts: Hosts, hetsp: str) -> None:
    ranks = run(hosts, hetsp, [[Message(0, 1, 8 * MIB), Message(6, 5, 8 * MIB), Message(3, 0, 100)]])
    assert sum(sent_by_nic(ranks, 0)) + sum(sent_by_nic(ranks, 1)) <= 64 * 1024
    assert [rank["statistics"]["routes"]["local"] for rank in ranks] == [1, 0, 0, 0, 0, 0, 1, 0]
    assert [rank["statistics"]["routes"]["eager"] for rank in ranks] == [0, 0, 0, 1, 0, 0, 0, 0]


def all_to_all(rank: Rank, backend: str, splits: list[list[int]], rounds: int) -> list[bool]:
    """splits[i][j]: bytes from rank i to rank j, in one call."""
    session, own = Session(rank, backend), rank.rank
    sizes = [row[own] for row in splits]
    fine = []
    for turn in range(rounds):
        given = torch.cat([pattern(size, turn, own, to) for to, size in enumerate(splits[own])])
        found = torch.zeros(sum(sizes), dtype=torch.uint8)
        dist.all_to_all_single(found, given, sizes, splits[own])
        expected = torch.cat([pattern(size, turn, source, own) for source, size in enumerate(sizes)])
        fine.append(torch.equal(found, expected))
    session.agree()
    return fine


def test_an_uneven_all_to_all_across_hosts(hosts: Hosts, backend: str) -> None:
    draw = torch.Generator().manual_seed(5)
    splits = torch.randint(0, MIB, (8, 8), generator=draw)
    splits[2, 5] = 8 * MIB + 3
    splits[7] = 0
    splits[:, 1] = 0
    with Run(hosts, all_to_all, backend, splits.tolist(), 2) as started:
        assert started.results() == [[True, True]] * 8
