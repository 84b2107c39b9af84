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
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from bench.support import RankedCase, main_on_ranks
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
        print(f"the plans of {lengths}")
        for strategy in PLANS:
            plan = hetsp.plan(lengths, cluster, cost_model, strategy=strategy)
            balance = statistics.mean(plan.rank_seconds) / max(plan.rank_seconds)
            print(f"  {strategy:<13} | {plan.one_line():<12} | predicted {plan.makespan:.3g} s | balance {balance:.0%}")
    return {strategy: call(strategy) for strategy in PLANS}


def case(name: str, lengths: list[int]) -> RankedCase:
    title = f"{name}, {sum(lengths)} tokens, {RANKS} ranks"
    return RankedCase(title, lambda: contenders(lengths), work={"token": sum(lengths)})


if __name__ == "__main__":
    main_on_ranks(RANKS, [case(name, lengths) for name, lengths in CASES.items()])
