"""NICs that are slow, lossy, silent, gone or flapping: every byte arrives, the rail is noticed, left, and used again."""

import random
import time
from collections.abc import Callable

import pytest

from tests.multirank.nic import fault_series
from tests.multirank.nic.faulted import rail_of, resent, under_fault
from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Run
from tests.multirank.nic.traffic import MIB, flows, hot_pair, ring, wrong_of

SIZE = 32 * MIB  # 0.35 s over four NICs
NOTICED = 0.2  # seconds within which a rail must be found dead on an idle machine
PATIENCE = 5  # this machine may be busy with other tests


def disturbed(hosts: Hosts, fault: Callable[[], object], after: float = 0.15, messages: int = 2) -> list[dict]:
    with Run(hosts, under_fault, "hetsp", hot_pair(4 * MIB), hot_pair(SIZE), messages) as run:
        run.hear("started")
        time.sleep(after)
        fault()
        run.hear("through")
        hosts.heal()
        run.tell("healed", time.monotonic())
        ranks = run.results()
    assert wrong_of(ranks) == []
    return ranks


def require_noticed_and_back(ranks: list[dict], nic: int) -> None:
    owners = [nic, 4 + nic]
    down = [rail_of(ranks[owner]["faulted"], nic) for owner in owners]
    assert max(rail["times_down"] for rail in down) >= 1
    assert max(rail["silence_noticed"] for rail in down) <= PATIENCE * NOTICED
    for other in set(range(4)) - {nic}:
        assert rail_of(ranks[other]["faulted"], other)["up"]
    for rank, owner in enumerate(owners):
        healed = rail_of(ranks[owner]["healed"], nic)
        assert healed["up"]
        assert healed["bytes_sent"] + healed["bytes_received"] > down[rank]["bytes_sent"] + down[rank]["bytes_received"]
    assert ranks[0]["back"] <= PATIENCE * 2.0


@pytest.mark.parametrize("host", [0, 1])
@pytest.mark.parametrize("nic", [0, 2])
def test_a_nic_goes_down(nic: int, host: int, hosts: Hosts, hetsp: str) -> None:
    ranks = disturbed(hosts, lambda: hosts.link(host, nic, up=False))
    require_noticed_and_back(ranks, nic)
    assert resent(ranks) > 0


@pytest.mark.parametrize("host", [0, 1])
@pytest.mark.parametrize("nic", [0, 2])
def test_a_nic_falls_silent(nic: int, host: int, hosts: Hosts, hetsp: str) -> None:
    """A black hole on host 0 swallows the acknowledgements alone, on host 1 the data."""
    require_noticed_and_back(disturbed(hosts, lambda: hosts.black_hole(host, nic)), nic)


@pytest.mark.parametrize("seconds", [0.05, 0.5, 2.0])
def test_a_nic_flaps(seconds: float, hosts: Hosts, hetsp: str) -> None:
    def flap() -> None:
        for _ in range(2):
            hosts.link(1, 1, up=False)
            time.sleep(seconds)
            hosts.link(1, 1, up=True)
            time.sleep(0.1)

    disturbed(hosts, flap, messages=4)


def test_a_slow_nic_gets_little(hosts: Hosts, hetsp: str) -> None:
    ranks = disturbed(hosts, lambda: hosts.rate(2, hosts.mbit // 8), messages=3)
    first = sum(rail_of(ranks[2]["faulted"], 2)["bytes_sent"] for _ in range(1))
    others = [rail_of(ranks[nic]["faulted"], nic)["bytes_sent"] for nic in (0, 1, 3)]
    assert first <= 0.6 * min(others), f"{first} bytes over the slow NIC, {others} over the others"


def test_a_lossy_nic_costs_no_byte(hosts: Hosts, hetsp: str) -> None:
    disturbed(hosts, lambda: hosts.loss(1, 1, 50))


def test_all_nics_but_one_fail(hosts: Hosts, hetsp: str) -> None:
    def fault() -> None:
        hosts.link(0, 0, up=False)
        hosts.black_hole(1, 1)
        hosts.link(1, 2, up=False)

    ranks = disturbed(hosts, fault, messages=1)
    assert ranks[0]["back"] <= PATIENCE * 2.0


@pytest.mark.parametrize("pattern", [ring(4 * MIB), flows([8 * MIB] * 4)], ids=["ring", "flows"])
def test_other_traffic_survives_too(pattern: list, hosts: Hosts, hetsp: str) -> None:
    with Run(hosts, under_fault, hetsp, pattern, pattern, 2) as run:
        run.hear("started")
        time.sleep(0.05)
        hosts.link(1, 3, up=False)
        run.hear("through")
        hosts.heal()
        run.tell("healed", time.monotonic())
        assert wrong_of(run.results()) == []


@pytest.mark.parametrize("seed", range(2))
def test_a_series_of_faults(seed: int, hosts: Hosts, hetsp: str) -> None:
    found = fault_series.one_group(hosts, random.Random(seed), faults=5)
    assert found.wrong == []
    assert found.faults == 5
