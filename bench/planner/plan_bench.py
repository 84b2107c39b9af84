"""Makespans of `auto` against what a user would run instead, and the time to plan. A makespan is a prediction, not a run."""

from collections.abc import Iterator

import numpy as np

import hetsp_ext as hetsp
from bench.support import Comparison, compare, main


def homogeneous(lengths: np.ndarray, cluster: hetsp.Cluster, cost: hetsp.CostModel, degree: int) -> float:
    """Seconds of the best-known habit: equal groups of one degree, longest first onto the least loaded group."""
    loads = np.zeros(cluster.ranks // degree)
    for tokens in sorted(lengths.tolist(), reverse=True):
        loads[loads.argmin()] += cost.seconds(hetsp.Sequence(tokens), degree)
    return float(loads.max())


def run(rounds: int) -> Iterator[Comparison]:
    cost = hetsp.planner.default_cost_model()
    for ranks, count in ((4, 12), (64, 512)):
        lengths = np.random.default_rng(1).lognormal(np.log(1600), 1.5, count).astype(int).clip(1, 131072)
        cluster = hetsp.Cluster(ranks, int(lengths.sum()))
        plan = hetsp.plan(lengths, cluster, cost)
        others = {name: hetsp.plan(lengths, cluster, cost, strategy=name).makespan for name in ("static", "data-parallel")}
        powers = [2**k for k in range(ranks.bit_length()) if ranks % 2**k == 0]
        others["best one power of two"] = min(homogeneous(lengths, cluster, cost, degree) for degree in powers)
        print(f"{count} sequences on {ranks} ranks: gap {plan.gap:.2%}; predicted makespans over auto:")
        for name, seconds in others.items():
            print(f"  {name:<22} {seconds / plan.makespan:.2f}x")
        contenders = {
            name: lambda name=name, lengths=lengths, cluster=cluster: hetsp.plan(lengths, cluster, cost, strategy=name)
            for name in ("static", "data-parallel", "auto")
        }
        yield compare(f"time to plan {count} sequences on {ranks} ranks", contenders, rounds=rounds)


if __name__ == "__main__":
    main(run)
