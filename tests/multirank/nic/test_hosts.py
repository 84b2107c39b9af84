"""The hosts themselves: they are what they say, faults do what they say, and nothing is left behind."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.multirank.nic import hosts as hosts_module
from tests.multirank.nic import run as run_module
from tests.multirank.nic.hosts import HOSTS, Hosts, Unavailable
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import Session, why_no_backend
from tests.support.ranks import RankFailure


def inside(hosts: Hosts, host: int, *words: str) -> str:
    return subprocess.run(["ip", "netns", "exec", hosts.name(host), *words], capture_output=True, text=True, check=True).stdout


def counters(hosts: Hosts, host: int, nic: int) -> dict[str, int]:
    (link,) = json.loads(inside(hosts, host, "ip", "-j", "-s", "link", "show", f"nic{nic}"))
    return {"sent": link["stats64"]["tx"]["packets"], "arrived": link["stats64"]["rx"]["packets"]}


def datagrams(rank: Rank, nic: int, count: int) -> int:
    """Rank 0 sends, rank 1 (on the other host) counts; each 100 bytes, with a pause after every ten."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        if rank.rank:
            end.bind((f"10.200.{nic}.2", 4321))
            end.settimeout(0.5)
            rank.say("listening")
            arrived = 0
            while arrived < count:
                try:
                    end.recv(200)
                except TimeoutError:
                    break
                arrived += 1
            return arrived
        rank.wait("go")
        for index in range(count):
            end.sendto(bytes(100), (f"10.200.{nic}.2", 4321))
            if index % 10 == 9:
                time.sleep(0.002)
        return count


def arrived(hosts: Hosts, nic: int, count: int = 400) -> int:
    with Run(hosts, datagrams, nic, count, per_host=1) as run:
        run.hear("listening", [1])
        run.tell("go", ranks=[0])
        return run.results()[1]


def test_every_nic_is_limited_at_both_ends(hosts: Hosts) -> None:
    for host in HOSTS:
        for nic in range(hosts.nics):
            (limit,) = json.loads(inside(hosts, host, "tc", "-j", "qdisc", "show", "dev", f"nic{nic}"))
            assert (limit["kind"], limit["options"]["rate"] * 8) == ("tbf", hosts.mbit * 1_000_000)


def test_a_host_reaches_itself_over_loopback(hosts: Hosts) -> None:
    route = inside(hosts, 0, "ip", "route", "get", "10.200.1.1", "from", "10.200.0.1")
    assert "dev lo" in route


def test_the_topology_names_what_is_there(hosts: Hosts) -> None:
    for host, node in enumerate(hosts.topology()["nodes"]):
        addresses = json.loads(inside(hosts, host, "ip", "-j", "-4", "addr"))
        here = {link["ifname"]: link["addr_info"][0]["local"] for link in addresses}
        assert {nic["name"]: nic["address"] for nic in node["nics"]}.items() <= here.items()
        assert node["control"] == here["mgmt"]


def test_faults_do_what_they_say_and_heal(hosts: Hosts) -> None:
    assert arrived(hosts, 1) == 400
    hosts.loss(1, 1, 250)
    assert 200 < arrived(hosts, 1) < 390  # 300 on average; either bound is 11 standard deviations away
    hosts.black_hole(1, 2)
    assert arrived(hosts, 2) == 0
    assert arrived(hosts, 3) == 400
    hosts.link(1, 3, up=False)
    assert arrived(hosts, 3) == 0
    hosts.heal()
    healed = [arrived(hosts, nic) for nic in (1, 2, 3)]
    assert min(healed) > 350, healed  # a link that has just come up may drop its first packets; the loss would leave 300


def test_a_rate_changes_at_both_ends(hosts: Hosts) -> None:
    hosts.rate(2, 25)
    for host in HOSTS:
        (limit,) = json.loads(inside(hosts, host, "tc", "-j", "qdisc", "show", "dev", "nic2"))
        assert limit["options"]["rate"] * 8 == 25_000_000


def sleep(rank: Rank, seconds: float) -> int:
    rank.say("pid", os.getpid())
    time.sleep(seconds)
    return rank.rank


def test_nothing_is_left_behind(hosts: Hosts) -> None:
    with Hosts(nics=1) as own:
        assert own.prefix != hosts.prefix
        pids = Run(own, sleep, 600.0, per_host=1, seconds=600).hear("pid")  # nobody ends them
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert own.prefix not in listed
    assert hosts.prefix in listed
    states = [Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids if Path(f"/proc/{pid}/stat").exists()]
    assert set(states) <= {"Z", "X"}, "killed, perhaps not yet reaped"


def fail_on(rank: Rank, failing: int) -> None:
    print("I am", rank.rank)
    if rank.rank == failing:
        raise ValueError("a reason")
    time.sleep(30)


def test_a_failing_rank_ends_the_run_with_what_it_printed(hosts: Hosts) -> None:
    with Run(hosts, fail_on, 1, per_host=1) as run, pytest.raises(RankFailure, match=r"(?s)ValueError: a reason.*I am 1"):
        run.results()


def test_a_rank_that_hangs_prints_its_stacks(hosts: Hosts) -> None:
    with Run(hosts, sleep, 30.0, per_host=1, seconds=1) as run:
        run.hear("pid")
        with pytest.raises(RankFailure, match=r"(?s)waited for result in vain.*no group of backend hetsp.*in sleep"):
            run.results()


def test_a_test_that_hears_nothing_says_who_is_silent(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    with Run(hosts, sleep, 2.0, per_host=1, seconds=30) as run:
        run.quiet = 0.5
        run.hear("pid")
        assert run.results() == [0, 1]
    told = capsys.readouterr().err
    assert "0.5 s without a word, and ranks [0, 1] have not said result" in told
    assert "in sleep" in told


def test_a_process_that_outlives_its_end_is_named(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "LAST", 0.2)
    run = Run(hosts, sleep, 600.0, per_host=1, seconds=60)
    pids = run.hear("pid")
    with monkeypatch.context() as unkillable:
        unkillable.setattr(run, "kill", lambda ranks: None)
        still = rf"not ended 0.2 s after SIGKILL: rank 0 \(process {pids[0]}\) is S \(sleeping\), in .*; rank 1 "
        with pytest.raises(RankFailure, match=still), run:
            pass
    run.__exit__(None)
    assert not any(process.is_alive() for process in run.processes)


def wait_for_nothing(rank: Rank) -> None:
    session = Session(rank, "hetsp")
    session.agree()
    if rank.rank == 0:
        work = dist.irecv(torch.zeros(5), 1, tag=7)
        rank.say("waits")
        work.wait()
    session.agree()


@pytest.mark.skipif(bool(reason := why_no_backend("hetsp")), reason=reason or "")
def test_ranks_of_a_group_that_stands_still_tell_what_they_wait_for(hosts: Hosts) -> None:
    with Run(hosts, wait_for_nothing, per_host=1, seconds=20) as run:
        run.hear("waits", [0])
        run.ask()
        waiting, idle = run.output(0), run.output(1)
    assert "receiving from rank 1, no transfer begun, rail 0: no message for it has come" in waiting
    assert "rail 0 to rank 1: up, generation 1" in waiting
    assert "in wait_for_nothing" in waiting
    assert "rank 1 of 2: 0 operations are open" in idle


def test_a_machine_that_cannot_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module.os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="need root"):
        Hosts().__enter__()
    monkeypatch.setattr(hosts_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(hosts_module.shutil, "which", lambda tool: None)
    with pytest.raises(Unavailable, match="ip, tc, nft not found"):
        Hosts().__enter__()
