"""Messages between ranks of one node: through shared memory, through the loopback lanes that stand in for it, and plain Gloo's.

    python -m bench.comm.inside_bench [--rounds 9] [--ranks 2] [--out FILE]

Rank 0 sends to rank 1, which sends back what it got; half of the way there and back is the time of a message.
"both ways": the two send at once. A round runs every contender once for each size; figures are medians, bytes are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from bench.support.bars import Case, main_with_bars
from tests.support.hetsp_groups import new_group
from tests.support.ranks import run_ranks

SMALL = (8, 1024, 32 * 1024, 256 * 1024)
LARGE = (1 << 20, 16 << 20, 64 << 20)
CONTENDERS = ("shared memory", "loopback lanes", "gloo")


def there_and_back(rank: int, group: Any, tensor: torch.Tensor, back: torch.Tensor) -> None:
    if rank == 0:
        dist.send(tensor, 1, group=group)
        dist.recv(back, 1, group=group)
    else:
        dist.recv(back, 0, group=group)
        dist.send(back, 0, group=group)


def both_ways(rank: int, group: Any, tensor: torch.Tensor, back: torch.Tensor) -> None:
    works = [dist.irecv(back, 1 - rank, group=group), dist.isend(tensor, 1 - rank, group=group)]
    for work in works:
        work.wait()


def exchanges(rank: int, size: int, rounds: int) -> dict[str, list[float]]:
    groups = {
        "shared memory": new_group(),
        "loopback lanes": new_group(shared_memory=False),
        "gloo": dist.new_group(backend="gloo"),
    }
    found: dict[str, list[float]] = {}
    ways: tuple[tuple[str, Callable[..., None], int, tuple[int, ...]], ...] = (
        ("there and back", there_and_back, 2, SMALL + LARGE),
        ("both ways", both_ways, 1, LARGE),
    )
    for way, call, messages, sizes in ways:
        for count in sizes:
            tensor = torch.arange(count, dtype=torch.int64).to(torch.uint8)
            repeats = max(1, min(50, (4 << 20) // count))
            for turn in range(rounds + 1):
                for name, group in groups.items():
                    if rank > 1:
                        dist.barrier()
                        continue
                    back = torch.zeros_like(tensor)
                    dist.barrier()
                    begin = time.monotonic()
                    for _ in range(repeats):
                        call(rank, group, tensor, back)
                    taken = (time.monotonic() - begin) / repeats / messages
                    assert torch.equal(back, tensor)
                    if turn:  # the first one is warm-up
                        found.setdefault(f"{way} {count} {name}", []).append(taken)
    for name in ("shared memory", "loopback lanes"):
        dist.destroy_process_group(groups[name])
    return found


def run(options: argparse.Namespace) -> Iterator[Case]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    found = run_ranks(options.ranks, exchanges, options.rounds, timeout=300.0)[0]
    for way, sizes in (("there and back", SMALL), ("there and back", LARGE), ("both ways", LARGE)):
        for count in sizes:
            median = {name: statistics.median(found[f"{way} {count} {name}"]) for name in CONTENDERS}
            small = sizes is SMALL
            case = Case(f"{count} bytes, {way}")
            for name in CONTENDERS:
                case.add(f"{name}, {'us' if small else 'MB/s'}", median[name] * 1e6 if small else count * 1e-6 / median[name])
            case.add("gloo / shared memory", median["gloo"] / median["shared memory"], ">=", 1.0)
            yield case


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ranks", type=int, default=2, help="of the node; those beyond two are idle")
    main_with_bars(run, parser)
