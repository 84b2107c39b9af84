"""A rank that dies, stops or leaves in the middle of a transfer: everyone learns who it was, at once, and nobody hangs."""

import json
import os
import re
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.multirank.nic.death import blame, lose_a_rank
from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import MIB, Session, exchange, flows, pattern, ring

LEARNT = 1.0  # seconds within which every rank must know
PATIENCE = 5  # this machine may be busy with other tests


def require_readable(text: str, gone: int) -> None:
    """What a person needs, in one line: who is gone, and of this rank's own operation the peer, the transfer and the lane."""
    assert text.startswith(f"rank {gone} "), text
    operation = r"\((sending to|receiving from) rank \d, (transfer \d+|no transfer begun), (rail \d|inside the node)\)$"
    assert re.search(operation, text), text
    assert text.isascii(), text
    assert text.isprintable(), text
    assert "pair.cc" not in text, text  # Gloo's own words name its source files, and give advice that does not fit here


def require_blamed(ranks: list[Any], dead: int, killed: float) -> None:
    for rank, told in enumerate(ranks):
        if rank == dead:
            continue
        assert told["type"] == "PeerLost", f"rank {rank}: {told}"
        require_readable(told["text"], dead)
        assert told["time"] - killed <= PATIENCE * LEARNT, f"rank {rank}: {told['time'] - killed:.2f} s later"


@pytest.mark.parametrize(("how", "dead"), [("recv", 0), ("send", 5), ("ring", 0), ("ring", 7)])  # 0 keeps the rendezvous
def test_a_killed_rank_is_named_by_everyone(how: str, dead: int, hosts: Hosts, hetsp: str) -> None:
    with Run(hosts, lose_a_rank, how, seconds=40) as run:
        run.hear("started")
        time.sleep(0.3)
        ranks = run.results(dead=[dead]) if (killed := run.kill([dead])) else []
    require_blamed(ranks, dead, killed)
    if (how, dead) == ("ring", 7):
        busy = ranks[0]["text"]  # its receive was under way, over the NICs; messages inside a host are through by then
        assert "transfer" in busy, busy


def pass_on_the_cause(rank: Rank) -> dict[str, Any]:
    """Rank 1 waits for rank 5, which dies; everyone else waits for rank 1, which leaves because of it."""
    session = Session(rank, "hetsp")
    session.agree()
    rank.say("started")
    try:
        dist.recv(torch.zeros(8, dtype=torch.uint8), 5 if rank.rank == 1 else 1)
    except Exception as error:
        told = blame(error)
        try:
            dist.send(torch.zeros(8, dtype=torch.uint8), 2 if rank.rank != 2 else 3)
            told["later"] = "nothing"
        except Exception as later:
            told["later"] = f"{type(later).__name__}: {later}"
        rank.leave(told)
    return {"type": "none"}


def test_the_first_cause_is_passed_on(hosts: Hosts, hetsp: str) -> None:
    with Run(hosts, pass_on_the_cause, seconds=40) as run:
        run.hear("started")
        time.sleep(0.2)
        killed = run.kill([5])
        ranks = run.results(dead=[5])
    require_blamed(ranks, 5, killed)
    assert all(told["later"].startswith("PeerLost: rank 5") for told in ranks if told), ranks


def form_again(rank: Rank) -> dict[str, Any]:
    """After rank 6's death the seven others make a group of their own, renumbered, over the same NICs."""
    session = Session(rank, "hetsp")
    session.agree()
    rank.say("started")
    try:
        dist.recv(torch.zeros(8, dtype=torch.uint8), 6)
    except Exception as error:
        told = blame(error)
    dist.destroy_process_group()
    os.environ.update(rank.wait("again"))
    os.environ["RANK"] = str(rank.rank - (rank.rank > 6))
    timeout = timedelta(seconds=30)
    dist.init_process_group("cpu:hetsp", rank=int(os.environ["RANK"]), world_size=7, timeout=timeout)
    own = dist.get_rank()
    found = torch.zeros(4 * MIB, dtype=torch.uint8)
    works = [dist.irecv(found, (own - 1) % 7), dist.isend(pattern(4 * MIB, own), (own + 1) % 7)]
    for work in works:
        work.wait()
    dist.barrier()
    return told | {"right": torch.equal(found, pattern(4 * MIB, (own - 1) % 7))}


def test_the_group_can_be_formed_again(hosts: Hosts, hetsp: str, tmp_path: Path) -> None:
    topology = hosts.topology()
    topology["nodes"][1]["ranks"] = [4, 5, 6]
    (tmp_path / "seven.json").write_text(json.dumps(topology))
    with Run(hosts, form_again, seconds=60) as run:
        run.hear("started")
        time.sleep(0.1)
        killed = run.kill([6])
        living = [rank for rank in range(8) if rank != 6]
        port = str(hosts.next_port())
        run.tell("again", {"HETSP_TOPOLOGY": str(tmp_path / "seven.json"), "MASTER_PORT": port}, living)
        ranks = run.results(dead=[6])
    require_blamed(ranks, 6, killed)
    assert all(told["right"] for told in ranks if told)


def keep_going(rank: Rank) -> list[Any]:
    session = Session(rank, "hetsp")
    wrong = exchange(session, [*flows([16 * MIB] * 4), *ring(MIB)], 3, begun=lambda: rank.say("started"))["wrong"]
    session.agree()
    return wrong


def test_a_stopped_rank_is_waited_for(hosts: Hosts, hetsp: str) -> None:
    """Silence is no death: a process may be paused, by a debugger or a checkpoint of its machine."""
    with Run(hosts, keep_going) as run:
        run.hear("started")
        time.sleep(0.1)
        run.kill([5], signal.SIGSTOP)
        time.sleep(2.0)
        run.kill([5], signal.SIGCONT)
        assert run.results() == [[]] * 8


def one_leaves(rank: Rank) -> Any:
    session = Session(rank, "hetsp")
    session.agree()
    if rank.rank == 3:
        dist.send(torch.arange(100), 4)
        dist.destroy_process_group()
        rank.leave()
    if rank.rank == 4:
        found = torch.zeros(100, dtype=torch.int64)
        dist.recv(found, 3)
        assert torch.equal(found, torch.arange(100))
        try:
            dist.recv(found, 3)
        except Exception as error:
            return blame(error)
    return None


def test_a_rank_that_leaves_in_peace_delivers_first(hosts: Hosts, hetsp: str) -> None:
    with Run(hosts, one_leaves, seconds=40) as run:
        told = run.results()[4]
    assert told["type"] == "PeerLost"
    require_readable(told["text"], 3)
    assert "left the group" in told["text"]
