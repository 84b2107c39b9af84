"""How groups form between hosts, below the native backend: what is found, what a dead NIC costs, and how a rail comes back."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.multirank.nic.hosts import HOSTS, Hosts, _do
from tests.multirank.nic.run import Rank, Run

NICS = ["nic0", "nic1", "nic2", "nic3"]


def forms(rank: Rank, renew: bool = False) -> dict[str, Any]:
    """What this rank found, or the error; with `renew` it waits for `healed` and then connects what was down."""
    import torch.distributed as dist

    from hetsp_ext.distributed import group

    store = next(dist.rendezvous("env://", rank=rank.rank, world_size=rank.size))[0]
    begin = time.monotonic()
    try:
        formed = group.form(store, rank.rank, list(range(rank.size)), rank.size, timedelta(seconds=30), None)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    rails = {(peer, rail): generation for peer, rail, generation, _ in formed.rails}
    found = {"nodes": formed.topology.as_records(), "rails": rails, "seconds": time.monotonic() - begin}
    rank.say("formed")
    if renew:
        rank.wait("healed")
        found["renewed"] = {key: formed.connect(*key, 0)[1] for key, generation in rails.items() if generation == 0}
        rank.say("renewed")
        rank.wait("end")  # Gloo breaks the other end's context as soon as this one goes
    formed.connect.close()
    return found


def test_hosts_and_their_nics_are_found(hosts: Hosts) -> None:
    with Run(hosts, forms, own_environment=lambda rank: {"HETSP_TOPOLOGY": ""}) as run:
        run.hear("formed")
        ranks = run.results()
    for index, node in enumerate(ranks[0]["nodes"]):
        assert node["ranks"] == list(range(4 * index, 4 * index + 4))
        assert [nic["name"] for nic in node["nics"]] == NICS
        assert [nic["address"] for nic in node["nics"]] == [f"10.200.{nic}.{index + 1}" for nic in range(4)]
        assert node["control"] == f"10.255.0.{index + 1}"
    assert [rank["rails"] for rank in ranks] == [{((each + 4) % 8, each % 4): 1} for each in range(8)]


DEAD = {
    "down on 0": lambda hosts: hosts.link(0, 2, up=False),
    "down on 1": lambda hosts: hosts.link(1, 2, up=False),
    "silent on 0": lambda hosts: hosts.black_hole(0, 2),
    "silent on 1": lambda hosts: hosts.black_hole(1, 2),
}


@pytest.mark.parametrize("topology", [None, ""], ids=["given", "found"])
@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD.keys())
def test_a_dead_nic_costs_its_rail_and_comes_back(dead: Callable[[Hosts], None], topology: str | None, hosts: Hosts) -> None:
    dead(hosts)
    with Run(hosts, forms, True, own_environment=lambda rank: {} if topology is None else {"HETSP_TOPOLOGY": topology}) as run:
        run.hear("formed")
        hosts.heal()
        run.tell("healed")
        run.hear("renewed")
        run.tell("end")
        ranks = run.results()
    assert [rank["rails"] for rank in ranks] == [{((each + 4) % 8, each % 4): int(each % 4 != 2)} for each in range(8)]
    assert [rank["renewed"] for rank in ranks] == [{((each + 4) % 8, 2): 1} if each % 4 == 2 else {} for each in range(8)]


def said(run: Run) -> str:
    (error,) = {rank.get("error", "formed") for rank in run.results()}
    return error


def test_hosts_without_any_nic_between_them_are_named(hosts: Hosts) -> None:
    for nic in range(4):
        hosts.black_hole(1, nic)
    with Run(hosts, forms) as run:
        error = said(run)
    assert error.startswith("PeerLost: rank 4 and the other ranks of node 1 cannot be reached from node 0 over any NIC")
    assert all(f"{nic} to {nic}" in error for nic in NICS)


def test_a_host_that_control_does_not_reach_is_named(hosts: Hosts) -> None:
    """The store stays reachable over a NIC."""
    here = {"MASTER_ADDR": "10.200.0.1"}
    try:
        _do("ip", "-n", hosts.name(1), "link", "set", "mgmt", "down")
        with Run(hosts, forms, own_environment=lambda rank: here) as run:
            error = said(run)
    finally:
        _do("ip", "-n", hosts.name(1), "link", "set", "mgmt", "up")
    assert "PeerLost: rank 4 on node 1 cannot be reached at its control address 10.255.0.2 by ranks [0, 1, 2, 3]" in error


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_without_nics_is_named(host: int, hosts: Hosts) -> None:
    nodes = hosts.topology()["nodes"]
    nodes[host].pop("nics")
    with Run(hosts, forms, topology={"nodes": nodes}) as run:
        error = said(run)
    assert error == (
        f"InvalidArgument: HETSP_TOPOLOGY: nodes[{host}] has no nics; every one of several nodes needs at least one"
    )
