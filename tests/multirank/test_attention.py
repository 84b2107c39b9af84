"""Attention over several ranks against float64 maths on one: values, gradients, every kind of group, every wrapper."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from tests.support import reference
from tests.support.plans import plan_of, random_plan
from tests.support.ranks import RankFailure, run_ranks

OPTIONS = {
    "plain": {},
    "window": {"window_size": (9, -1)},
    "softcap": {"softcap": 5.0},
    "scale": {"softmax_scale": 0.3},
    "full": {"causal": False},
}


def make_inputs(plan, heads, kv_heads, dim, dim_v, seed):
    """float64 (q, k, v, grad_out) of each document and a sink: the same on every rank."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    documents = []
    for sequence in plan.sequences:
        n = sequence.tokens
        documents.append((normal(n, heads, dim), normal(n, kv_heads, dim), normal(n, kv_heads, dim_v), normal(n, heads, dim_v)))
    return documents, normal(heads)


def expected(documents, sink, options):
    """(out, dq, dk, dv) of each document and the sink's gradient summed over all."""
    left, right = options.get("window_size", (-1, -1))
    window = (left, 0 if options.get("causal", True) else right)
    sink = None if sink is None else sink.clone().requires_grad_()
    results, total = [], torch.zeros((), dtype=torch.float64)
    for q, k, v, grad in documents:
        leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
        out = reference.attention(
            *leaves, window=window, scale=options.get("softmax_scale"), softcap=options.get("softcap", 0.0), sink=sink
        )
        total = total + (out * grad).sum()
        results.append((out, leaves))
    total.backward()
    return [(out.detach(), *(leaf.grad for leaf in leaves)) for out, leaves in results], None if sink is None else sink.grad


def check_rank(rank, size, plan_dict, shape, dtype, option, with_sink, seed, checkpointed):
    """Largest norm error over this rank's pieces of out, dq, dk, dv, and of dsink (equal on all ranks after the sum)."""
    plan = hetsp.Plan.from_dict(plan_dict)
    documents, sink = make_inputs(plan, *shape, seed)
    sink = sink if with_sink else None
    rounded = [tuple(t.to(dtype).double() for t in document) for document in documents]
    want, want_sink = expected(rounded, sink, OPTIONS[option])
    texts = [torch.zeros(sequence.tokens, dtype=torch.int64) for sequence in plan.sequences]
    own_sink = None if sink is None else sink.to(torch.float64 if dtype == torch.float64 else torch.float32).requires_grad_()
    floor = [1e-2 * grad.norm().item() for *_, grad in documents]  # a gradient that is exactly 0 has no relative error
    errors = []
    for shard in hetsp.shard(plan, texts):
        pieces = shard.layout.pieces

        def local(which, pieces=pieces):
            parts = [documents[s][which][b:e] for s, b, e in pieces]
            shape_if_none = documents[0][which].shape[1:]
            return torch.cat(parts).to(dtype) if parts else torch.zeros(0, *shape_if_none, dtype=dtype)

        q, k, v = (local(which).requires_grad_() for which in range(3))

        def attend(q, k, v, layout=shard.layout):
            return hetsp.sequence_parallel_attention(q, k, v, layout, sink=own_sink, **OPTIONS[option])

        out = torch.utils.checkpoint.checkpoint(attend, q, k, v, use_reentrant=False) if checkpointed else attend(q, k, v)
        out.backward(local(3))
        for index, got in enumerate((out, q.grad, k.grad, v.grad)):
            row = 0
            for s, b, e in pieces:
                part_of = want[s][index]
                part = part_of[b:e]
                errors.append(
                    (got[row : row + e - b].double() - part).norm().item() / max(want[s][index].norm().item(), floor[s])
                )
                row += e - b
    if own_sink is not None:
        gradient = torch.zeros_like(own_sink) if own_sink.grad is None else own_sink.grad.clone()
        dist.all_reduce(gradient)
        errors.append((gradient.double() - want_sink).norm().item() / want_sink.norm().item())
    return max(errors, default=0.0)


BARS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1.5e-2}


@pytest.mark.parametrize("seed", range(12))
def test_random_plans_agree_with_one_rank(seed):
    size = 2 + seed % 4
    plan = random_plan(size, seed)
    shape = [(4, 2, 16, 16), (4, 4, 8, 24), (6, 1, 16, 8)][seed % 3]
    dtype = [torch.float64, torch.float32, torch.float64, torch.bfloat16][seed % 4]
    option = list(OPTIONS)[seed % len(OPTIONS)]
    arguments = (plan.to_dict(), shape, dtype, option, seed % 2 == 1, seed, seed % 5 == 4)
    assert max(run_ranks(size, check_rank, *arguments)) <= BARS[dtype]


LENGTHS = {"shorter than the ring": [1, 3], "prime": [97], "empty between": [5, 0, 11], "one token": [1]}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_ring_of_five_holds_any_length(case):
    lengths = LENGTHS[case]
    plan = plan_of(5, lengths, [[(range(len(lengths)), [3, 1, 4, 0, 2])]])
    assert max(run_ranks(5, check_rank, plan.to_dict(), (2, 1, 8, 8), torch.float64, "plain", True, 0, False)) <= 1e-12


def test_rings_on_overlapping_rank_sets_run_at_once():
    groups = [([0], [0, 1, 2]), ([1], [2, 0]), ([2, 3], [1, 2]), ([4], [0]), ([5], [1]), ([6], [2, 1, 0])]
    plan = plan_of(3, [40, 31, 22, 9, 50, 17, 64], [groups])
    assert max(run_ranks(3, check_rank, plan.to_dict(), (4, 2, 16, 16), torch.float64, "plain", True, 1, False)) <= 1e-12


def misplanned(rank, size):
    plan = random_plan(size, seed=3 if rank != 1 else 4)
    texts = [torch.zeros(sequence.tokens, dtype=torch.int64) for sequence in plan.sequences]
    hetsp.shard(plan, texts)


def test_ranks_with_different_plans_all_refuse_before_sending():
    outcomes = run_ranks(3, misplanned, outcomes=True)
    assert all(isinstance(outcome, hetsp.errors.PlanMismatch) for outcome in outcomes)
    assert all("rank 1 has" in str(outcome) for outcome in outcomes)


def agreed(rank, size):
    mine = random_plan(size, seed=5) if rank == 0 else None
    return hetsp.agree(mine).digest


def test_agree_brings_rank_0s_plan_to_all():
    assert set(run_ranks(3, agreed)) == {random_plan(3, seed=5).digest}


def wrong_size(rank, size):
    hetsp.shard(random_plan(size + 1, seed=0), [])


def test_a_plan_for_other_ranks_is_refused():
    with pytest.raises(RankFailure) as failure:
        run_ranks(2, wrong_size)
    assert "the plan is for 3 ranks; the group has 2" in str(failure.value.error)


def dies_between_calls(rank, size):
    import os
    import signal

    plan = plan_of(size, [64], [[([0], range(size))]])
    shard = hetsp.shard(plan, [torch.zeros(64, dtype=torch.int64)])[0]
    q = torch.randn(shard.layout.tokens, 2, 8)
    hetsp.sequence_parallel_attention(q, q, q, shard.layout)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(3):
        hetsp.sequence_parallel_attention(q, q, q, shard.layout)


def test_a_dead_rank_is_named_by_its_neighbour():
    outcomes = run_ranks(3, dies_between_calls, outcomes=True)
    assert outcomes[1] is None
    assert isinstance(outcomes[2], hetsp.errors.PeerLost)
    assert "rank 1 was lost" in str(outcomes[2])


def bad_shape(rank, size):
    plan = plan_of(size, [64], [[([0], range(size))]])
    shard = hetsp.shard(plan, [torch.zeros(64, dtype=torch.int64)])[0]
    q = torch.randn(shard.layout.tokens + 1, 2, 8)
    hetsp.sequence_parallel_attention(q, q, q, shard.layout)


def test_a_wrong_number_of_rows_is_named():
    with pytest.raises(RankFailure) as failure:
        run_ranks(2, bad_shape)
    assert isinstance(failure.value.error, hetsp.errors.InvalidArgument)
    assert "the layout holds 32 tokens on rank 0" in str(failure.value.error)
