"""What a fault of a NIC or the death of a rank costs: seconds against the least that is possible, and how soon it is noticed.

    python -m bench.comm.fault_bench [--rate 400] [--rounds 5] [--only WORD] [--out FILE]     (root)

A hot pair sends 256 MB over four NICs, one of which fails after 0.3 s. The bound is what the NICs' measured rates allow: all
four until then, those that remain afterwards. "noticed": from the fault until a rank's statistics say that the rail is down,
looked at every 10 ms. "used again": from the NIC's return until its rail has carried bytes at both ends, in steps of a small
exchange. Bytes are compared in every round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.support.bars import Case
from bench.support.two_hosts import main_over_hosts
from tests.multirank.nic import fault_series
from tests.multirank.nic.death import lose_a_rank
from tests.multirank.nic.faulted import under_fault
from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Run
from tests.multirank.nic.traffic import MIB, Message, exchanges, flows, hot_pair, seconds_of, wrong_of

SIZE = 256 * MIB
AT = 0.3  # seconds into the transfer
NIC = 2


def nic_rate(hosts: Hosts, nics: list[int], rounds: int = 1) -> float:
    """Bytes/s that plain Gloo gets over these NICs together."""
    sent = [message for message in flows([16 * MIB] * 4) if message.source in nics]
    with Run(hosts, exchanges, "gloo", [sent], rounds) as run:
        ranks = run.results()
    return statistics.median(len(sent) * 16 * MIB / seconds_of(ranks, job) for job in range(rounds))


def routed(hosts: Hosts, sent: list[Message], rounds: int) -> float:
    """Median seconds of a healthy group whose NICs are as they are."""
    with Run(hosts, exchanges, "hetsp", [sent], rounds, seconds=300) as run:
        ranks = run.results()
    assert wrong_of(ranks) == []
    return statistics.median(seconds_of(ranks, job) for job in range(1, rounds))


def weak_nics(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    """A NIC that is weak from the start."""
    three = nic_rate(hosts, [0, 1, 3], options.rounds)
    weak: dict[str, Callable[[], None]] = {
        "at an eighth of its rate": lambda: hosts.rate(NIC, options.rate // 8),
        "with 5 % loss at the receiver": lambda: hosts.loss(1, NIC, 50),
        "with 5 % loss at the sender (of acknowledgements)": lambda: hosts.loss(0, NIC, 50),
    }
    size = 128 * MIB
    for name, fault in weak.items():
        fault()
        remains = three + nic_rate(hosts, [NIC], options.rounds)
        taken = routed(hosts, hot_pair(size), options.rounds + 1)
        hosts.heal()
        case = Case(f"one NIC {name}, {size // MIB} MB").add("what remains, Mbit/s", remains * 8e-6)
        case.add("routed, Mbit/s", size * 8e-6 / taken)
        yield case.add("of what remains", size / taken / remains, ">=", 0.9)


def disturb(hosts: Hosts, fault: Callable[[], object]) -> tuple[list[dict[str, Any]], float]:
    """What the ranks say, and when the NIC failed."""
    with Run(hosts, under_fault, "hetsp", hot_pair(16 * MIB), hot_pair(SIZE), 0, seconds=120) as run:
        run.hear("started")
        time.sleep(AT)
        failed = time.monotonic()
        fault()
        run.hear("through")
        hosts.heal()
        run.tell("healed", time.monotonic())
        ranks = run.results()
    assert wrong_of(ranks) == []
    return ranks, failed


def failing_nics(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    four = nic_rate(hosts, [0, 1, 2, 3], options.rounds)
    faults: dict[str, tuple[Callable[[], object], float]] = {}
    for host in (0, 1):
        side = ("sender", "receiver")[host]
        faults[f"down at the {side}"] = (lambda host=host: hosts.link(host, NIC, up=False), float("inf"))
        faults[f"silent at the {side}"] = (lambda host=host: hosts.black_hole(host, NIC), float("inf"))
        faults[f"down for 0.5 s at the {side}"] = (lambda host=host: down_for(hosts, host, 0.5), 0.5)
    faults["of the sender itself, down at the receiver"] = (lambda: hosts.link(1, 0, up=False), float("inf"))
    for name, (fault, lasts) in faults.items():
        nic = 0 if name.startswith("of the sender") else NIC
        excess, noticed, back, again = [], [], [], []
        for _ in range(options.rounds):
            ranks, failed = disturb(hosts, fault)
            at = failed - min(rank["jobs"][1]["begin"] for rank in ranks)
            taken = seconds_of(ranks, 1)
            excess.append(taken / bound(four, at, lasts))
            seen = [rank["down_at"][nic] for rank in ranks if nic in rank["down_at"]]
            noticed.append(min(seen, default=float("inf")) - failed)
            back.append(ranks[0]["back"])
            again.append(sum(rank["faulted"]["chunks_resent"] for rank in ranks))
        case = Case(f"a NIC {name}, {SIZE // MIB} MB").add("of the bound", statistics.median(excess), "<=", 1.1)
        case.add("worst of the bound", max(excess)).add("noticed, s", statistics.median(noticed), "<=", 0.2)
        case.add("worst noticed, s", max(noticed)).add("chunks sent again", statistics.median(again))
        yield case.add("used again, s", statistics.median(back), "<=", 2.0).add("worst used again, s", max(back))


def down_for(hosts: Hosts, host: int, seconds: float) -> None:
    hosts.link(host, NIC, up=False)
    time.sleep(seconds)
    hosts.link(host, NIC, up=True)


def bound(four: float, at: float, lasts: float) -> float:
    """Seconds that four equal NICs need when one is away from `at` on, for `lasts` seconds."""
    left = SIZE - four * at
    away = left / (0.75 * four)
    return at + away if away <= lasts else at + lasts + (left - 0.75 * four * lasts) / four


def forming(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    dead = {
        "healthy": lambda: None,
        "a NIC down": lambda: hosts.link(1, NIC, up=False),
        "a NIC silent": lambda: hosts.black_hole(1, NIC),
    }
    for name, fault in dead.items():
        fault()
        with Run(hosts, exchanges, "hetsp", [hot_pair(16 * MIB)], 1, seconds=90) as run:
            ranks = run.results()
        hosts.heal()
        assert wrong_of(ranks) == []
        yield Case(f"a group forms, {name}").add("slowest rank, s", max(rank["forming"] for rank in ranks), "<=", 10.0)


def deaths(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    for how in ("recv", "send", "ring"):
        learnt = []
        for dead in random.Random(how).sample(range(8), options.rounds):
            with Run(hosts, lose_a_rank, how, seconds=40) as run:
                run.hear("started")
                time.sleep(0.3)
                killed = run.kill([dead])
                ranks = run.results(dead=[dead])
            others = [rank for rank in ranks if rank]
            assert all(told["type"] == "PeerLost" and told["text"].startswith(f"rank {dead}") for told in others), others
            learnt.append(max(told["time"] for told in others) - killed)
        case = Case(f"a rank killed, the others in {how}").add("all know, s", statistics.median(learnt), "<=", 1.0)
        yield case.add("worst, s", max(learnt), "<=", 1.0)


def series(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    found = [fault_series.one_group(hosts, random.Random(seed), faults=10) for seed in range(options.groups)]
    case = Case(f"seeded faults over {options.groups} fresh groups, NICs of {options.rate} Mbit/s")
    case.add("faults", sum(each.faults for each in found)).add(
        "wrong messages", sum(len(each.wrong) for each in found), "==", 0
    )
    case.add("chunks sent again", sum(each.resent for each in found)).add("rails down", sum(each.times_down for each in found))
    case.add("duplicates dropped", sum(each.duplicates for each in found))
    yield case.add("frames of other epochs dropped", sum(each.foreign for each in found))


CASES = {"weak": weak_nics, "failing": failing_nics, "forming": forming, "deaths": deaths, "series": series}


if __name__ == "__main__":
    main_over_hosts(
        __doc__,
        CASES,
        lambda parser: parser.add_argument("--groups", type=int, default=20, help="of the series of faults, ten in each"),
    )
