"""Messages between two hosts with limited NICs: routed over all of them, against one NIC and against the sum of all.

    python -m bench.comm.routing_bench [--backend hetsp] [--rate 400] [--rounds 5] [--only WORD] [--out FILE]     (root)

Hosts are network namespaces with four NICs and four ranks each (tests/multirank/nic/hosts.py). "one NIC" is plain Gloo, every
rank on the NIC beside it; "sum" is four plain flows at once, as many bytes in all as the case sends across the busier side, so
that what the NICs' token buckets give for free is the same in both. A round runs every contender once; figures are medians
over rounds, ratios medians of the ratio within a round. Bytes are compared in every round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from bench.support.bars import Case
from bench.support.two_hosts import main_over_hosts
from tests.multirank.nic.hosts import Hosts
from tests.multirank.nic.run import Rank, Run
from tests.multirank.nic.traffic import MIB, Message, Session, exchange, flows, hot_pair, pattern, ring

Job = tuple[str, str, Sequence[Message]]  # contender, "plain" or "ours", messages


def contend(rank: Rank, backend: str, jobs: Sequence[Job], rounds: int) -> dict[str, Any]:
    """Every job once a round; when each began and its messages ended."""
    session = Session(rank, backend)
    plain = session.one_nic()
    done: dict[str, list[Any]] = {name: [] for name, _, _ in jobs}
    for turn in range(rounds + 1):  # the first one is warm-up, and thrown away
        for name, whose, messages in jobs:
            got = exchange(session, messages, turn, plain if whose == "plain" else session.group)
            assert got["wrong"] == [], f"{name}: wrong bytes in {got['wrong']}"
            if turn:
                done[name].append(got)
    session.agree()
    return {"done": done, "statistics": session.statistics()}


def seconds(ranks: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Per round: from the first rank's begin to the last message's end."""
    return [end - begin for begin, end, _ in spans(ranks, name)]


def spans(ranks: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[float, float, list[float]]]:
    """Per round: begin, end, and the end of every message at its receiver."""
    for turn in range(len(ranks[0]["done"][name])):
        jobs = [rank["done"][name][turn] for rank in ranks]
        begin = min(job["begin"] for job in jobs)
        ends = [(message, end) for rank, job in enumerate(jobs) for message, end in job["ends"] if message.destination == rank]
        yield begin, max(end for job in jobs for _, end in job["ends"]), [end for _, end in ends]


def ratio(ranks: Sequence[Mapping[str, Any]], slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds(ranks, slow), seconds(ranks, fast), strict=True))


def mbit(size: float, ranks: Sequence[Mapping[str, Any]], name: str) -> float:
    return size * 8e-6 / statistics.median(seconds(ranks, name))


def run_jobs(hosts: Hosts, options: argparse.Namespace, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    with Run(hosts, contend, options.backend, jobs, options.rounds, seconds=300) as run:
        return run.results()


def sum_of_nics(size: int) -> Job:
    return ("sum", "plain", flows([size // 4] * 4))


def hot_pairs(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    for size, of_one, of_sum in ((64 * MIB, 3.8, 0.95), (16 * MIB, None, 0.90)):
        jobs = [("one NIC", "plain", hot_pair(size)), ("routed", "ours", hot_pair(size)), sum_of_nics(size)]
        ranks = run_jobs(hosts, options, jobs)
        case = Case(f"one hot pair, {size // MIB} MB, 4 x {options.rate} Mbit/s")
        case.add("one NIC, Mbit/s", mbit(size, ranks, "one NIC")).add("routed, Mbit/s", mbit(size, ranks, "routed"))
        case.add("sum, Mbit/s", mbit(size, ranks, "sum"))
        case.add("of one NIC", ratio(ranks, "one NIC", "routed"), ">=" if of_one else None, of_one)
        yield case.add("of the sum", ratio(ranks, "sum", "routed"), ">=", of_sum)


def rings(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    size = 32 * MIB
    ranks = run_jobs(hosts, options, [("one NIC", "plain", ring(size)), ("routed", "ours", ring(size))])
    case = Case(f"ring of 8, {size // MIB} MB, one crossing pair in each direction, 4 x {options.rate} Mbit/s")
    case.add("one NIC, Mbit/s", mbit(size, ranks, "one NIC")).add("routed, Mbit/s", mbit(size, ranks, "routed"))
    yield case.add("of one NIC", ratio(ranks, "one NIC", "routed"), ">=", 3.6)


def concurrent_flows(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    size = 32 * MIB
    for count in (1, 2, 3, 4):
        sent = flows([size] * count)
        jobs = [("direct", "plain", sent), ("routed", "ours", sent), sum_of_nics(size * count)]
        ranks = run_jobs(hosts, options, jobs)
        case = Case(f"{count} flows of {size // MIB} MB, 4 x {options.rate} Mbit/s")
        case.add("direct, Mbit/s", mbit(size * count, ranks, "direct"))
        case.add("routed, Mbit/s", mbit(size * count, ranks, "routed"))
        case.add("sum, Mbit/s", mbit(size * count, ranks, "sum"))
        case.add("of the sum", ratio(ranks, "sum", "routed"), ">=", 0.95)
        if count == 4:
            case.add("of direct", ratio(ranks, "direct", "routed"), ">=", 0.98)
            chosen = [rank["statistics"] for rank in ranks if rank["statistics"]]
            case.add("chunks relayed", sum(each["chunks_relayed"] for each in chosen))
        last = [max(ends) - begin for begin, _, ends in spans(ranks, "routed")]
        first = [min(ends) - begin for begin, _, ends in spans(ranks, "routed")]
        unfair = statistics.median(a / b for a, b in zip(last, first, strict=True))
        yield case.add("slowest finish / fastest", unfair, "<=", 1.1)


def delays(rank: Rank, backend: str, sizes: Sequence[int], count: int) -> dict[str, list[float]]:
    """Half of a message's way there and back between ranks 0 and 4, by group and size."""
    session = Session(rank, backend)
    groups = {"plain": session.one_nic(), "ours": session.group}
    found: dict[str, list[float]] = {f"{name} {size}": [] for name in groups for size in sizes}
    for size in sizes:
        tensor = pattern(size, size)
        back = torch.zeros_like(tensor)
        for turn in range(count + 3):
            for name, group in groups.items():
                session.agree()
                if rank.rank == 0:
                    begin = time.monotonic()
                    dist.send(tensor, 4, group=group)
                    dist.recv(back, 4, group=group)
                    if turn >= 3:
                        found[f"{name} {size}"].append((time.monotonic() - begin) / 2)
                    assert torch.equal(back, tensor)
                elif rank.rank == 4:
                    dist.recv(back, 0, group=group)
                    dist.send(back, 0, group=group)
    session.agree()
    return found | {"spread": session.statistics().get("routes", {}).get("spread", 0)}


def small_messages(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    sizes = [8, 4096, 32 * 1024, 128 * 1024, 256 * 1024 - 1]
    with Run(hosts, delays, options.backend, sizes, 8 * options.rounds, seconds=120) as run:
        found = run.results()
    for size in sizes:
        plain, ours = (statistics.median(found[0][f"{name} {size}"]) for name in ("plain", "ours"))
        case = Case(f"one message of {size} bytes").add("plain, us", plain * 1e6).add("ours, us", ours * 1e6)
        yield case.add("ours / plain", ours / plain)
    spread = sum(rank["spread"] for rank in found)
    yield Case(f"messages under {256 * 1024} bytes").add("spread over several NICs", spread, "==", 0)


def uneven_splits(size: int) -> list[list[int]]:
    """splits[i][j]: one rank of each host sends half of what leaves it; a sixth stays at home."""
    draw = torch.Generator().manual_seed(11)
    weights = torch.rand((8, 8), generator=draw) + 0.1
    weights[1] *= 4
    weights[6] *= 3
    for host in (0, 1):
        weights[4 * host : 4 * host + 4, 4 * host : 4 * host + 4] *= 0.2
    return (weights / weights[:4, 4:].sum() * size).to(torch.int64).tolist()


def all_to_alls(rank: Rank, backend: str, splits: list[list[int]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    session, own = Session(rank, backend), rank.rank
    plain = session.one_nic()
    sizes = [row[own] for row in splits]
    given = torch.cat([pattern(size, own, to) for to, size in enumerate(splits[own])])
    expected = torch.cat([pattern(size, source, own) for source, size in enumerate(sizes)])
    across = max(sum(map(sum, (row[4:] for row in splits[:4]))), sum(map(sum, (row[:4] for row in splits[4:]))))
    done: dict[str, list[Any]] = {"plain": [], "ours": [], "sum": []}
    for turn in range(rounds + 1):
        for name, group in (("plain", plain), ("ours", session.group)):
            found = torch.zeros_like(expected)
            session.agree()
            begin = time.monotonic()
            dist.all_to_all_single(found, given, sizes, splits[own], group=group)
            end = time.monotonic()
            assert torch.equal(found, expected)
            done[name] += [(begin, end)] * (turn > 0)
        got = exchange(session, flows([across // 4] * 4), turn, plain)
        done["sum"] += [(got["begin"], max([end for _, end in got["ends"]], default=got["begin"]))] * (turn > 0)
    session.agree()
    return done


def all_to_all_cases(hosts: Hosts, options: argparse.Namespace) -> Iterator[Case]:
    size = 64 * MIB
    splits = uneven_splits(size)
    with Run(hosts, all_to_alls, options.backend, splits, options.rounds, seconds=300) as run:
        ranks = run.results()
    taken = {
        name: [
            max(rank[name][turn][1] for rank in ranks) - min(rank[name][turn][0] for rank in ranks)
            for turn in range(options.rounds)
        ]
        for name in ("plain", "ours", "sum")
    }
    case = Case(f"all-to-all with uneven splits, {size // MIB} MB from host 0 to host 1, 4 x {options.rate} Mbit/s")
    for name in taken:
        case.add(f"{name}, s", statistics.median(taken[name]))
    for name, holds in (("plain", None), ("sum", ">=")):
        value = statistics.median(a / b for a, b in zip(taken[name], taken["ours"], strict=True))
        case.add(f"of {name}", value, holds, 0.9)
    yield case


CASES = {
    "pair": hot_pairs,
    "ring": rings,
    "flows": concurrent_flows,
    "small": small_messages,
    "all-to-all": all_to_all_cases,
}


if __name__ == "__main__":
    main_over_hosts(
        __doc__,
        CASES,
        lambda parser: parser.add_argument("--backend", default="hetsp", help="hetsp, or gloo to see that the ratios are 1"),
    )
