"""Seconds below which no plan of disjoint groups ends in the simulator, whoever plans.

A rank works through its groups one after the other, and is in a group at least as long as that group takes alone, on links that
nobody shares. Of sequences of s tokens and p pairs on d ranks that is at least

    whole            a p + b s
    Ulysses, gather  (a p + b s) / d + k s                                   nothing hides their communication
    ring             the larger of (a p + b s) / d and b s / d + k s + a p / d^2   the last step needs the last hop

with start-ups left out (a group pays them once) and the simulator's own k: the seconds of a token that communicates and is
not computed, on whole nodes and a part of one more, its ranks spread over that node's NICs. The larger of two sums is no sum: a
ring of some degree is counted by the second form where that is the larger for every sequence of the batch, else by the first.

So a plan that ends by T gives each sequence a kind and degree at which it ends by T alone (the longest by simulation, start-ups
included), in memory that holds it, and all d times these seconds together fit into N T. The least T by bisection; beside it
micro_batch_seconds of the micro-batches that memory asks for, of chains for the tokens that a full one holds. Where nothing is
hidden and start-ups are free, what the planner certifies holds, too.

The bound covers groups that take as few nodes as they can, as all plans do whose strategy leaves their placement open.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import hetsp_ext as hetsp

Array = np.ndarray[Any, np.dtype[np.float64]]
SIMULATED = 8  # longest sequences that are simulated alone
UNIT = 10**9  # tokens: a group of them without pairs shows k
STRATEGIES = {"whole": "whole", "ring": "zigzag", "ulysses": "contiguous", "gather": "zigzag"}  # kind: cut


@dataclass(frozen=True)
class Mode:
    kind: str
    degree: int
    pair_seconds: float  # a / d, and more where heads do not divide
    token_seconds: float  # b / d
    communication_seconds: float  # k


class SimulatedBound:
    """Of steps of one preset on so many ranks; `seconds(lengths)` of each."""

    def __init__(self, setting: hetsp.Preset, ranks: int, max_length: int) -> None:
        self.setting, self.cluster = setting, setting.cluster(ranks, max_length)
        empty = hetsp.plan([1], self.cluster, setting.cost_model, "static", exclusive=True, executable=setting.executable)
        self.offloadable = float(empty.to_dict()["offloadable"])
        self.modes = [self._mode("whole", 1)]
        for degree in range(2, ranks + 1):
            for kind in setting.executable:
                if kind != "whole" and not (kind == "ulysses" and degree > setting.cost_model.max_head_degree):
                    self.modes.append(self._mode(kind, degree))

    def seconds(self, lengths: list[int], certified: float = 0.0) -> float:
        """The bound for one step; `certified` is the planner's, which holds where the simulator hides nothing."""
        cost, ranks, room = self.setting.cost_model, self.cluster.ranks, self.cluster.tokens_per_rank
        sequences = sorted(self.setting.sequences(lengths), key=lambda sequence: -sequence.tokens)
        tokens = np.array([sequence.tokens for sequence in sequences], dtype=np.float64)
        pairs = np.array([sequence.visible_pairs for sequence in sequences], dtype=np.float64)
        kept = tokens * (1.0 - self.offloadable)
        chained = self.setting.synchronisation == "step"
        of_group = cost.micro_batch_seconds if chained else 0.0
        alone = np.full((len(self.modes), len(sequences)), np.inf)  # seconds
        areas = np.zeros_like(alone)  # rank-seconds
        for row, mode in enumerate(self.modes):
            least = self._least(mode, tokens, pairs)
            areas[row] = mode.degree * (least + of_group * kept / (mode.degree * room))
            for index in range(min(SIMULATED, len(sequences))):
                least[index] = self._alone(mode, sequences[index].tokens, sequences[index].visible_pairs)
            alone[row] = np.where(kept <= mode.degree * room, least + of_group, np.inf)
        low, high = 0.0, float(alone.min(axis=0).sum())
        while high - low > 1e-9 * high:
            middle = 0.5 * (low + high)
            needed = np.where(alone <= middle, areas, np.inf).min(axis=0).sum()
            low, high = (low, middle) if needed <= ranks * middle else (middle, high)
        if not chained:
            low += cost.micro_batch_seconds * max(1, math.ceil(kept.sum() / (ranks * room) * (1.0 - 1e-12)))
        exact = not self.setting.overlaps and cost.shape is None and cost.hop_seconds == 0.0
        return max(low, certified) if exact else low

    def _least(self, mode: Mode, tokens: Array, pairs: Array) -> Array:
        """Seconds of each sequence in such a group, start-ups left out."""
        compute = mode.pair_seconds * pairs + mode.token_seconds * tokens
        if mode.kind != "ring" or not self.setting.overlaps:
            return compute + mode.communication_seconds * tokens
        hops = (mode.token_seconds + mode.communication_seconds) * tokens + mode.pair_seconds * pairs / mode.degree
        return hops if bool((hops >= compute).all()) else compute

    def _mode(self, kind: str, degree: int) -> Mode:
        cost = self.setting.cost_model
        heads = cost.shape.heads if cost.shape is not None and kind == "ulysses" else 1
        uneven = math.ceil(heads / degree) * degree / heads if kind == "ulysses" and heads > 1 else 1.0
        tokens = cost.seconds_per_token / degree
        empty = Mode(kind, degree, 0.0, 0.0, 0.0)
        communication = (self._alone(empty, UNIT, 0) - self._alone(empty, 0, 0)) / UNIT - tokens
        return Mode(kind, degree, cost.seconds_per_pair / degree * uneven, tokens, max(0.0, communication))

    def _alone(self, mode: Mode, tokens: int, pairs: int) -> float:
        """Seconds of a group with that sequence and nothing beside it, micro_batch_seconds left out."""
        node, ranks = self.setting.ranks_per_node, self.cluster.ranks
        whole, part = mode.degree // node * node, mode.degree % node
        members = [*range(whole), *(whole + place * node // part for place in range(part))]
        group = {
            "sequences": [0],
            "ranks": members,
            "head_degree": mode.degree if mode.kind == "ulysses" else 1,
            "ring_degree": 1 if mode.kind == "ulysses" else mode.degree,
            "gather_kv": mode.kind == "gather",
            "cut": STRATEGIES[mode.kind],
            "activations": "keep",
        }
        times = {"makespan": 0.0, "lower_bound": 0.0, "rank_seconds": [0.0] * ranks, "compute_seconds": [0.0] * ranks}
        step = {"sequences": [[tokens, pairs, 0.0]], "micro_batches": [[group]], "exclusive": True, "synchronisation": "step"}
        plan = hetsp.Plan.from_dict({"version": 1, "ranks": ranks, "strategy": "static"} | times | step)
        timeline = hetsp.simulate(plan, self.setting.cost_model, ranks_per_node=node, overlap=self.setting.overlaps)
        return float(timeline.makespan - self.setting.cost_model.micro_batch_seconds)
