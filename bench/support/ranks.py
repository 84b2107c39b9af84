"""Benchmarks of several ranks on one machine: every contender runs on all of them, rank 0 keeps the time.

A contender's call must end on every rank together (with a collective), or rank 0 would time its own part only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

from .report import main
from .timing import Comparison, compare


@dataclass(frozen=True)
class RankedCase:
    """`contenders()` is called on every rank and names the same calls in the same order on each."""

    title: str
    contenders: Callable[[], Mapping[str, Callable[[], object]]]
    work: Mapping[str, float] = field(default_factory=dict)  # see compare


STOP = -1


def _follow(cases: Sequence[RankedCase]) -> None:
    """Ranks other than 0: run what rank 0 announces, until it says stop."""
    choice = torch.zeros(1, dtype=torch.int64)
    for case in cases:
        calls = list(case.contenders().values())
        while dist.broadcast(choice, 0) or choice.item() != STOP:
            calls[int(choice)]()


def _lead(cases: Sequence[RankedCase], rounds: int) -> Iterator[Comparison]:
    def announced(index: int, call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            dist.broadcast(torch.tensor([index]), 0)
            call()

        return run

    for case in cases:
        calls = {name: announced(index, call) for index, (name, call) in enumerate(case.contenders().items())}
        yield compare(case.title, calls, rounds=rounds, work=case.work)
        dist.broadcast(torch.tensor([STOP]), 0)


def _start(rank: int, ranks: int, store: str, cases: Sequence[RankedCase]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    if rank == 0:
        main(lambda rounds: _lead(cases, rounds))
    else:
        _follow(cases)
    dist.destroy_process_group()


def main_on_ranks(ranks: int, cases: Sequence[RankedCase]) -> None:
    """The command line of a benchmark on `ranks` processes over Gloo; options as those of `main`."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (ranks, str(Path(folder) / "store"), cases)
        torch.multiprocessing.start_processes(_start, arguments, nprocs=ranks, start_method="fork")
