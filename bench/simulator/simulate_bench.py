"""Time to replay a step against the time to plan it, for rings over few and many ranks and for disjoint groups."""

from collections.abc import Iterator

import numpy as np

import hetsp_ext as hetsp
from bench.support import Comparison, compare, main


def run(rounds: int) -> Iterator[Comparison]:
    setting = hetsp.preset("llama-7b")
    for ranks, count in ((16, 64), (64, 512), (1024, 2048)):
        lengths = np.random.default_rng(1).lognormal(np.log(1600), 1.5, count).astype(int).clip(1, 131072)
        cluster = setting.cluster(ranks, 131072)
        sequences = setting.sequences(lengths.tolist())
        for strategy in ("te-cp", "dhp"):

            def plan(sequences=sequences, cluster=cluster, strategy=strategy):
                return hetsp.plan(
                    sequences, cluster, setting.cost_model, strategy, executable=("whole", "ring"), exclusive=True
                )

            made = plan()

            def simulate(made=made):
                return hetsp.simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node)

            case = f"{count} sequences on {ranks} ranks, {strategy}"
            yield compare(case, {"plan": plan, "simulate": simulate}, rounds=rounds)


if __name__ == "__main__":
    main(run)
