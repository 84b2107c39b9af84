"""A whole training step of `hetsp train`, planning to optimizer, under each plan on the same documents.

    python -m bench.train.plans_bench [--rounds N] [--out FILE]     (2 ranks; HETSP_BENCH_RANKS for more)

`static` cuts every document over all ranks, as a fixed sequence-parallel degree does; `data-parallel` keeps every document on
one rank; `auto` gives each as many as it deserves. The printed balance is what the plan is made for: the mean over the ranks
of its predicted seconds, of the slowest rank's. Where ranks share cores, the times are those of all ranks' work in turn, and
only the balance tells the plans apart. Rank 0 keeps the time; a step ends when the slowest rank has its gradient sum.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from bench.support import compare, main
from bench.support.timing import Comparison
from hetsp_ext.train.cost import cluster_of, cost_model_of
from hetsp_ext.train.model import build_model, model_config
from hetsp_ext.train.ranks import Ranks
from hetsp_ext.train.step import Planner, Trainer

RANKS = int(os.environ.get("HETSP_BENCH_RANKS", "2"))
PLANS = ("static", "data-parallel", "auto")
CASES = {
    "one long, many short": [2048, 512, *[128] * 12],
    "short only": [256] * 16,
    "three of a kind": [1024] * 3,
}


class RandomBytes:
    """A source whose every step has the same lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths

    def lengths(self, step: int) -> list[int]:
        return self._lengths

    def read(self, sequence: tuple[int, int], begin: int, end: int, fields: Sequence[str]) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(sequence[1])
        return {"tokens": torch.randint(256, (self._lengths[sequence[1]],), generator=draw)[begin:end]}


def contenders(lengths: list[int]) -> dict[str, Callable[[], object]]:
    """One step under each plan, each with a model of its own."""
    config = model_config("tiny", max(lengths))
    cluster, cost_model = cluster_of(RANKS, sum(lengths)), cost_model_of(config, torch.float32, torch.device("cpu"))
    ranks = Ranks(dist.get_rank(), RANKS, torch.device("cpu"))

    def call(strategy: str) -> Callable[[], object]:
        trainer = Trainer(build_model(config, torch.float32, seed=0), RandomBytes(lengths), ranks, learning_rate=1e-3)
        planner = Planner(cluster, cost_model, strategy)
        return lambda: trainer.run(0, planner)

    if ranks.rank == 0:
        for strategy in PLANS:
            plan = hetsp.plan(lengths, cluster, cost_model, strategy=strategy)
            balance = statistics.mean(plan.rank_seconds) / max(plan.rank_seconds)
            print(f"  {strategy:<13} | {plan.one_line():<12} | predicted {plan.makespan:.3g} s | balance {balance:.0%}")
    return {strategy: call(strategy) for strategy in PLANS}


def follow() -> None:
    """Ranks other than 0: run what rank 0 runs, until it says stop."""
    for lengths in CASES.values():
        calls = list(contenders(lengths).values())
        choice = torch.zeros(1, dtype=torch.int64)
        while dist.broadcast(choice, 0) or choice.item() >= 0:
            calls[int(choice)]()


def lead(rounds: int) -> Iterator[Comparison]:
    for case, lengths in CASES.items():
        title = f"{case}, {sum(lengths)} tokens, {RANKS} ranks"
        print(f"{title}: the plans")

        def announced(index: int, call: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                dist.broadcast(torch.tensor([index]), 0)
                call()

            return run

        calls = {name: announced(index, call) for index, (name, call) in enumerate(contenders(lengths).items())}
        yield compare(title, calls, rounds=rounds, work={"token": sum(lengths)})
        dist.broadcast(torch.tensor([-1]), 0)


def start(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    if rank == 0:
        main(lead)
    else:
        follow()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(start, (str(Path(folder) / "store"),), nprocs=RANKS, start_method="fork")
