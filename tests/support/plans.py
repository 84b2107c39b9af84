"""Plans written by hand or drawn at random, for tests of what executes them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import hetsp_ext as hetsp


def plan_of(
    ranks: int, lengths: Sequence[int], micro_batches: Sequence[Sequence[tuple[Sequence[int], Sequence[int]]]]
) -> hetsp.Plan:
    """A plan of micro-batches of groups (sequences, ranks); several ranks share their sequences in a zigzag ring."""

    def group(sequences: Sequence[int], members: Sequence[int]) -> dict[str, Any]:
        return {
            "sequences": list(sequences),
            "ranks": list(members),
            "head_degree": 1,
            "ring_degree": len(members),
            "gather_kv": False,
            "cut": "whole" if len(members) == 1 else "zigzag",
            "activations": "keep",
        }

    return hetsp.Plan.from_dict(
        {
            "version": 1,
            "ranks": ranks,
            "sequences": [[n, n * (n + 1) // 2, 0.0] for n in lengths],
            "micro_batches": [[group(*entry) for entry in groups] for groups in micro_batches],
            "synchronisation": "step",
            "strategy": "by hand",
            "rank_seconds": [0.0] * ranks,
            "compute_seconds": [0.0] * ranks,
            "makespan": 0.0,
            "lower_bound": 0.0,
        }
    )


def random_plan(ranks: int, seed: int, longest: int = 70) -> hetsp.Plan:
    """Groups of any degree on any rank sets, several to a rank, ranks without tokens, one or two micro-batches."""
    draw = random.Random(seed)
    lengths = [draw.choice([1, 2, 3, draw.randint(1, longest), longest]) for _ in range(draw.randint(1, 7))]
    micro_batches: list[list[tuple[list[int], list[int]]]] = [[] for _ in range(draw.randint(1, 2))]
    for sequence in range(len(lengths)):
        groups = draw.choice(micro_batches)
        if groups and draw.random() < 0.3:
            groups[-1][0].append(sequence)
        else:
            groups.append(([sequence], draw.sample(range(ranks), draw.randint(1, ranks))))
    return plan_of(ranks, lengths, micro_batches)
