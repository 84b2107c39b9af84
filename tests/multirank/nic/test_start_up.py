"""Groups that form over NICs which are dead already, or among ranks that do not agree on the topology."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.multirank.nic.faulted import rail_of, until_all_carry
from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import MIB, Session, exchange, hot_pair, ring, wrong_of

FORMS = 10.0  # seconds within which a group must form
PATIENCE = 3  # this machine may be busy with other tests
DEAD = {
    "down on 0": lambda hosts: hosts.link(0, 2, up=False),
    "down on 1": lambda hosts: hosts.link(1, 2, up=False),
    "silent on 0": lambda hosts: hosts.black_hole(0, 2),
    "silent on 1": lambda hosts: hosts.black_hole(1, 2),
}


def forms_and_sends(rank: Rank) -> dict[str, Any]:
    session = Session(rank, "hetsp")
    jobs = [exchange(session, hot_pair(16 * MIB), 0), exchange(session, ring(2 * MIB), 1)]
    session.agree()
    found = {"jobs": jobs, "forming": session.forming_seconds, "faulted": session.statistics()}
    rank.say("through")
    found["back"] = until_all_carry(session, jobs, rank.wait("healed"))
    found["healed"] = session.statistics()
    session.agree()
    return found


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD.keys())
def test_a_dead_nic_costs_only_its_rail(dead: Callable[[Hosts], None], hosts: Hosts, hetsp: str) -> None:
    dead(hosts)
    with Run(hosts, forms_and_sends, seconds=90) as run:
        run.hear("through")
        hosts.heal()
        run.tell("healed", time.monotonic())
        ranks = run.results()
    assert wrong_of(ranks) == []
    assert max(rank["forming"] for rank in ranks) <= PATIENCE * FORMS
    for owner in (2, 6):
        assert not rail_of(ranks[owner]["faulted"], 2)["up"]
        assert rail_of(ranks[owner]["healed"], 2)["up"]
    for nic in (0, 1, 3):
        assert rail_of(ranks[nic]["faulted"], nic)["bytes_sent"] >= 3 * MIB


def refused(rank: Rank) -> str:
    """What init_process_group says."""
    try:
        Session(rank, "hetsp", seconds=20)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "formed"


def other_topology(hosts: Hosts, place: Path, ranks: set[int], **change: Any) -> Callable[[int], dict[str, str]]:
    """These ranks read a file that says something else."""
    (place / "other.json").write_text(json.dumps(hosts.topology() | change))
    return lambda rank: {"HETSP_TOPOLOGY": str(place / "other.json")} if rank in ranks else {}


def test_ranks_with_different_topologies_say_so(hosts: Hosts, tmp_path: Path, hetsp: str) -> None:
    fewer = other_topology(hosts, tmp_path, {4, 5, 6, 7}, **hosts.topology(nics=3))
    with Run(hosts, refused, own_environment=fewer) as run:
        said = run.results()
    assert all("opology" in each for each in said), said
    assert all(each.startswith("InvalidArgument") for each in said), said


def test_a_topology_without_a_rank_names_it(hosts: Hosts, tmp_path: Path, hetsp: str) -> None:
    nodes = hosts.topology()["nodes"]
    nodes[1]["ranks"] = [4, 5, 7]
    with Run(hosts, refused, own_environment=other_topology(hosts, tmp_path, set(range(8)), nodes=nodes)) as run:
        said = run.results()
    assert all(each.startswith("InvalidArgument") and "rank 6" in each for each in said), said


def test_an_address_that_is_not_here_is_named(hosts: Hosts, tmp_path: Path, hetsp: str) -> None:
    nodes = hosts.topology()["nodes"]
    nodes[1]["nics"][2]["address"] = "10.200.2.77"
    with Run(hosts, refused, own_environment=other_topology(hosts, tmp_path, set(range(8)), nodes=nodes)) as run:
        said = run.results()
    assert all("10.200.2.77" in each or "nic2" in each for each in said[4:]), said


def test_hosts_with_unequal_nics_use_what_they_share(hosts: Hosts, tmp_path: Path, hetsp: str) -> None:
    nodes = hosts.topology()["nodes"]
    nodes[1]["nics"] = nodes[1]["nics"][:3]
    with Run(hosts, shares, own_environment=other_topology(hosts, tmp_path, set(range(8)), nodes=nodes)) as run:
        ranks = run.results()
    assert wrong_of(ranks) == []
    sent = [rail["bytes_sent"] for rank in ranks[:4] for rail in rank["statistics"]["lanes"]]
    assert len(sent) == 3
    assert min(sent) >= 3 * MIB


def test_more_ranks_than_nics_share_them(hosts: Hosts, tmp_path: Path, hetsp: str) -> None:
    two = hosts.topology(nics=2)["nodes"]
    with Run(hosts, shares, own_environment=other_topology(hosts, tmp_path, set(range(8)), nodes=two)) as run:
        ranks = run.results()
    assert wrong_of(ranks) == []
    assert [len(rank["statistics"]["lanes"]) for rank in ranks] == [1, 1, 0, 0, 1, 1, 0, 0]


def test_without_a_file_hosts_and_nics_are_found(hosts: Hosts, hetsp: str) -> None:
    """The control network is found as one more NIC, as nothing says that it is not one: five rails a host."""
    with Run(hosts, shares, own_environment=lambda rank: {"HETSP_TOPOLOGY": None}) as run:
        ranks = run.results()
    assert wrong_of(ranks) == []
    assert sum(len(rank["statistics"]["lanes"]) for rank in ranks) >= 8


def shares(rank: Rank) -> dict[str, Any]:
    session = Session(rank, "hetsp")
    jobs = [exchange(session, hot_pair(16 * MIB), 0), exchange(session, ring(MIB), 1)]
    session.agree()
    return {"jobs": jobs, "statistics": session.statistics()}
