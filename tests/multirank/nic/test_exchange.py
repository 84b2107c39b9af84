"""Messages between hosts arrive byte for byte, whatever their pattern and size."""

import random

import pytest

from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Run
from tests.multirank.nic.traffic import MIB, Message, exchanges, flows, hot_pair, ring, wrong_of

SIZES = [0, 1, 7, 4096, 32768, 32769, 262143, 262144, 262145, MIB - 1, 3 * MIB + 5]


def random_messages(seed: int, count: int) -> list[Message]:
    """Any rank to any other, several of one pair under different tags."""
    draw = random.Random(seed)
    found = []
    for tag in range(count):
        source, destination = draw.sample(range(8), 2)
        size = draw.choice(SIZES) if draw.random() < 0.7 else draw.randrange(2 * MIB)
        found.append(Message(source, destination, size, tag))
    return found


def test_patterns_arrive(hosts: Hosts, backend: str) -> None:
    jobs = [hot_pair(8 * MIB), ring(2 * MIB), *(flows([2 * MIB] * count) for count in (1, 2, 3, 4))]
    with Run(hosts, exchanges, backend, jobs) as run:
        assert wrong_of(run.results()) == []


@pytest.mark.parametrize("seed", range(2))
def test_random_messages_arrive(seed: int, hosts: Hosts, backend: str) -> None:
    jobs = [random_messages(100 * seed + index, 24) for index in range(3)]
    with Run(hosts, exchanges, backend, jobs) as run:
        assert wrong_of(run.results()) == []
