"""The balance of the main job, counted from what the schedules execute and not from what the planner predicts."""

from __future__ import annotations

import pytest
import torch

import hetsp_ext as hetsp
from hetsp_ext._native import core
from hetsp_ext.train.cost import cluster_of, cost_model_of
from hetsp_ext.train.job import open_documents
from hetsp_ext.train.model import model_config
from hetsp_ext.train.options import Options

STEPS = 50
DEFAULTS = Options()
CONFIG = model_config(DEFAULTS.model, DEFAULTS.max_length)


def executed_pairs(steps) -> int:
    """(query, key) pairs of the segments that the kernels are given, row by row from the definition of a segment."""
    pairs = 0
    for step in steps:
        for q_begin, q_end, k_begin, k_end, q_pos0, k_pos0, left, right in step.segments:
            assert (left, right) == (-1, 0)
            seen = torch.arange(q_begin, q_end) - q_begin + q_pos0 - k_pos0 + 1  # keys up to the query's own position
            pairs += int(seen.clamp(0, k_end - k_begin).sum())
    return pairs


def rank_seconds(plan, cost) -> list[float]:
    """Attention and linear work of each rank, at the cost model's rates."""
    seconds = [0.0] * plan.ranks
    for micro_batch in range(len(plan.micro_batches)):
        layout = core.make_layout(plan, micro_batch)
        for rank in range(plan.ranks):
            schedule = core.make_schedule(layout, rank)
            pairs = executed_pairs(schedule.forward)
            assert pairs == executed_pairs(schedule.backward)
            seconds[rank] += cost.seconds_per_pair * pairs + cost.seconds_per_token * layout.tokens_of(rank)
    return seconds


@pytest.mark.parametrize("ranks", [3, 4, 5])
def test_every_rank_of_fifty_default_steps_works_as_long_as_the_others(ranks):
    source = open_documents(DEFAULTS)
    cost = cost_model_of(CONFIG, torch.float32, torch.device("cpu"))
    cluster = cluster_of(ranks, DEFAULTS.batch_tokens)
    degrees = set()
    for step in range(STEPS):
        plan = hetsp.plan(source.lengths(step), cluster, cost, executable=("whole", "ring"))
        seconds = rank_seconds(plan, cost)
        bar = 1.05 * max(sum(seconds) / ranks, plan.lower_bound)
        assert max(seconds) <= bar, f"step {step}, {plan.one_line()}, documents {source.lengths(step)}: {seconds}"
        degrees |= {len(group.ranks) for micro_batch in plan.micro_batches for group in micro_batch.groups}
    assert {1, ranks} <= degrees  # whole documents and shared ones
