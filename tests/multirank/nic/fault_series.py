"""Random faults in a row while random messages pass between random ranks: fresh groups, each with several faults.

    python -m tests.multirank.nic.fault_series --groups 20 --faults 10 --seed 0      (root; about 3 minutes)

Exit status 1, and the seed that repeats it, if a byte was wrong, a rank failed or hung.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.multirank.nic.hosts import HOSTS, Hosts
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import MIB, Message, Session, exchange
from tests.support.ranks import RankFailure

KINDS = ("down", "black hole", "flap", "slow", "loss", "two down", "stopped rank")


@dataclass
class Series:
    """What a group has been through."""

    faults: int = 0
    told: list[str] = field(default_factory=list)
    wrong: list[Message] = field(default_factory=list)
    resent: int = 0
    times_down: int = 0
    foreign: int = 0
    duplicates: int = 0
    starting: float = 0.0  # seconds until the first exchange; the first group's ranks wait for a server that imports torch
    seconds: float = 0.0  # of all exchanges
    ending: float = 0.0  # seconds until the last process was gone

    def describe(self) -> str:
        return (
            f"{self.faults} faults in {self.seconds:.1f} s, {self.starting:.1f} s of starting, {self.ending:.1f} s of ending "
            f"({', '.join(self.told)}); wrong: {self.wrong}; "
            f"{self.resent} chunks again, rails down {self.times_down} times, "
            f"{self.duplicates} duplicates and {self.foreign} foreign frames dropped"
        )


def random_messages(draw: random.Random) -> list[Message]:
    """A few large ones between hosts, many small ones anywhere."""
    found = []
    for tag in range(draw.randint(3, 16)):
        source, destination = draw.sample(range(8), 2)
        size = draw.choice([0, 1, 1000, 32768, 32769, 262144, 300_000, MIB, 4 * MIB, 12 * MIB])
        found.append(Message(source, destination, size, tag))
    found.append(Message(draw.randrange(4), 4 + draw.randrange(4), 8 * MIB, 99))
    return found


def endure(rank: Rank, jobs: Sequence[Sequence[Message]]) -> dict:
    session = Session(rank, "hetsp")
    done = []
    for seed, messages in enumerate(jobs):
        done.append(exchange(session, messages, seed, begun=lambda: rank.say("started"))["wrong"])
    session.agree()
    return {"wrong": [message for job in done for message in job], "statistics": session.statistics()}


def inject(hosts: Hosts, run: Run, draw: random.Random) -> tuple[str, set[int]]:
    """One fault, and the NICs that stay as it made them; a fault that ends by itself has ended on return."""
    kind, host, nic = draw.choice(KINDS), draw.choice(HOSTS), draw.randrange(hosts.nics)
    if kind == "stopped rank":
        stopped = draw.randrange(8)
        run.kill([stopped], signal.SIGSTOP)
        time.sleep(draw.uniform(0.05, 0.6))
        run.kill([stopped], signal.SIGCONT)
        return f"rank {stopped} stopped", set()
    lasting = {nic}
    if kind in ("down", "two down"):
        hosts.link(host, nic, up=False)
        if kind == "two down":
            second = (nic + draw.randint(1, 3)) % hosts.nics
            hosts.link(draw.choice(HOSTS), second, up=False)
            lasting.add(second)
    elif kind == "black hole":
        hosts.black_hole(host, nic)
    elif kind == "slow":
        hosts.rate(nic, draw.choice([2, 10, hosts.mbit // 8]))
    elif kind == "loss":
        hosts.loss(host, nic, draw.choice([10, 50, 300]))
    elif kind == "flap":
        for _ in range(draw.randint(1, 3)):
            hosts.link(host, nic, up=False)
            time.sleep(draw.uniform(0.0, 0.4))
            hosts.link(host, nic, up=True)
            time.sleep(draw.uniform(0.0, 0.2))
        lasting = set()
    return f"{kind} {host}.{nic}", lasting


def one_group(hosts: Hosts, draw: random.Random, faults: int, seconds: float = 120.0) -> Series:
    """A fresh group that goes through so many faults, one an exchange; some last over the next ones, but never on all NICs."""
    found, begin = Series(), time.monotonic()
    hosts.heal()
    broken: set[int] = set()
    begun: list[float] = []
    jobs = [random_messages(draw) for _ in range(faults)]
    with Run(hosts, endure, jobs, seconds=seconds) as run:
        for _ in range(faults):
            run.hear("started")
            begun.append(time.monotonic())
            time.sleep(draw.choice([0.0, draw.uniform(0.0, 0.05), draw.uniform(0.0, 0.4)]))
            told, lasting = inject(hosts, run, draw)
            broken |= lasting
            found.told.append(told)
            found.faults += 1
            if draw.random() < 0.5 or len(broken) == hosts.nics:
                time.sleep(draw.uniform(0.0, 0.6))
                hosts.heal()
                broken = set()
        ranks = run.results()
        begun.append(time.monotonic())
    found.ending = time.monotonic() - begun[-1]
    found.told = [f"{told} {end - start:.1f} s" for told, start, end in zip(found.told, begun, begun[1:], strict=False)]
    found.wrong = [message for rank in ranks for message in rank["wrong"]]
    for rank in ranks:
        found.resent += rank["statistics"]["chunks_resent"]
        found.foreign += rank["statistics"]["foreign_dropped"]
        found.duplicates += rank["statistics"]["duplicates_dropped"]
        found.times_down += sum(rail["times_down"] for rail in rank["statistics"]["lanes"])
    found.starting, found.seconds = begun[0] - begin, begun[-1] - begun[0]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--faults", type=int, default=10, help="in each group")
    parser.add_argument("--seed", type=int, default=0, help="of the first group; the next one has the next seed")
    options = parser.parse_args(argv)
    total, failed = 0, []
    with Hosts(nics=4, rate=200) as hosts:
        for seed in range(options.seed, options.seed + options.groups):
            try:
                found = one_group(hosts, random.Random(seed), options.faults)
            except RankFailure as error:
                failed.append(seed)
                print(f"seed {seed}: FAILED: {error}", flush=True)
                continue
            total += found.faults
            if found.wrong:
                failed.append(seed)
            print(f"seed {seed}: {found.describe()}", flush=True)
    print(f"{total} faults over {options.groups} groups; failed seeds: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
