"""One gradient whatever carries it: summed by hand, under DDP, under FSDP2, with recomputed activations.

The plans leave ranks without tokens, hold more ranks than documents, and take two micro-batches.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

import hetsp_ext as hetsp
from tests.support import reference
from tests.support.plans import plan_of
from tests.support.ranks import run_ranks

HEADS, KV_HEADS, DIM, WIDTH, VOCABULARY = 4, 2, 8, 32, 50

PLANS = {
    "rings and whole documents": plan_of(3, [33, 10, 21, 7], [[([0], [0, 1, 2]), ([1], [1]), ([2], [2, 0])], [([3], [0])]]),
    "more ranks than documents": plan_of(3, [29], [[([0], [2, 0])]]),
    "a rank without tokens": plan_of(3, [12, 31], [[([0], [1]), ([1], [1, 2])]]),
}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, (HEADS + 2 * KV_HEADS) * DIM)
        self.out = nn.Linear(HEADS * DIM, WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, attend) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(1, (-1, DIM)).split([HEADS, KV_HEADS, KV_HEADS], dim=1)
        x = x + self.out(attend(q, k, v).flatten(1))
        return x + self.mlp(x)


class Model(nn.Module):
    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(64, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens, position_ids, labels, attend) -> torch.Tensor:
        x = self.embedding(tokens) + self.positions(position_ids)
        for block in self.blocks:
            x = torch.utils.checkpoint.checkpoint(block, x, attend, use_reentrant=False) if self.recompute else block(x, attend)
        return hetsp.chunked_cross_entropy(x, self.head.weight, labels, chunk_tokens=16)


def make_model(recompute: bool = False) -> Model:
    torch.manual_seed(0)
    return Model(recompute).double()


def make_documents(plan) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(VOCABULARY, (sequence.tokens,), generator=draw) for sequence in plan.sequences]


def reference_gradients(plan) -> dict[str, torch.Tensor]:
    """One document at a time, dense attention, the plain mean over all counted labels of the step."""
    model, total, counted = make_model(), torch.zeros((), dtype=torch.float64), 0
    for text in make_documents(plan):
        labels = torch.cat([text[1:], torch.tensor([-100])])
        total = total + model(text, torch.arange(len(text)), labels, reference.attention)
        counted += len(text) - 1
    (total / counted).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def train_step(rank, size, plan_dict, wrapper, recompute):
    plan = hetsp.Plan.from_dict(plan_dict)
    model = make_model(recompute)
    gradients = "sum" if wrapper == "by hand" else "mean"
    if wrapper == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    if wrapper == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh("cpu", (size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    for shard in hetsp.shard(plan, make_documents(plan)):

        def attend(q, k, v, layout=shard.layout):
            return hetsp.sequence_parallel_attention(q, k, v, layout)

        loss_sum = model(shard.tokens, shard.position_ids, shard.labels, attend)
        hetsp.token_mean(loss_sum, plan, gradients=gradients).backward()
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if wrapper == "fsdp2":
            gradient = gradient.full_tensor()
        elif wrapper == "by hand":
            dist.all_reduce(gradient)
        found[name.removeprefix("module.")] = gradient
    return found


def train_steps(rank, size, plan_dicts, wrapper):
    return [train_step(rank, size, plan, wrapper, recompute) for plan in plan_dicts for recompute in (False, True)]


@pytest.mark.parametrize("wrapper", ["by hand", "ddp", "fsdp2"])
def test_every_gradient_equals_that_of_one_rank(wrapper):
    cases = [f"{case}, {activations}" for case in PLANS for activations in ("kept", "recomputed")]
    wants = [reference_gradients(plan) for plan in PLANS.values() for _ in range(2)]
    for steps in run_ranks(3, train_steps, [plan.to_dict() for plan in PLANS.values()], wrapper):
        for case, want, found in zip(cases, wants, steps, strict=True):
            assert found.keys() == want.keys()
            for name, gradient in want.items():
                assert (found[name] - gradient).norm() <= 1e-12 * max(gradient.norm().item(), 1e-3), (case, name)
