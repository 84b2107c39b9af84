"""One attention layer over several ranks, forward and backward: planned groups against the two static ways.

    python -m bench.sequence_parallel.attention_bench [--rounds N] [--out FILE]     (2 ranks; HETSP_BENCH_RANKS for more)

`all-gather` is what most frameworks do: every document cut over all ranks, keys and values gathered, then one local
attention. `static ring` cuts the same way and passes keys round. `planned` is hetsp.plan's choice for the same lengths.
Rank 0 keeps the time; each call ends when the slowest rank is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.distributed as dist

import hetsp_ext as hetsp
from bench.support import RankedCase, main_on_ranks

RANKS = int(os.environ.get("HETSP_BENCH_RANKS", "2"))
HEADS, KV_HEADS, DIM = 4, 2, 64
CASES = {
    "one long, many short": [3072, 512, *[128] * 12],
    "short only": [512] * 8,
    "one document": [4096],
}


class GatherRows(torch.autograd.Function):
    """All ranks' rows (equally many on each), one rank after the other."""

    @staticmethod
    def forward(ctx, own: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(own) for _ in range(RANKS)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.chunk(RANKS)[dist.get_rank()]


def gathered(shard: hetsp.Shard, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of this rank's rows to the gathered keys of all ranks (equal rows on every rank)."""
    keys, values = GatherRows.apply(k), GatherRows.apply(v)
    native = shard.layout.native
    runs, row = [], 0
    for rank in range(RANKS):
        for sequence, begin, end in native.pieces_of(rank):
            runs.append((sequence, begin, row, row + end - begin))
            row += end - begin
    segments, row = [], 0
    for sequence, begin, end in shard.layout.pieces:
        for other, k_begin, k_row, k_stop in runs:
            if other == sequence and k_begin < end:
                segments.append((row, row + end - begin, k_row, k_stop, begin, k_begin, -1, 0))
        row += end - begin
    out, _ = hetsp.segment_attention(q, keys, values, torch.tensor(segments))
    return out


def contenders(lengths: list[int]) -> dict[str, Callable[[], None]]:
    texts = [torch.zeros(n, dtype=torch.int64) for n in lengths]
    cluster = hetsp.Cluster(RANKS, sum(lengths))
    static = hetsp.shard(hetsp.plan(lengths, cluster, strategy="static"), texts)[0]
    planned = hetsp.shard(hetsp.plan(lengths, cluster), texts)[0]

    def call(shard: hetsp.Shard, attend: Callable[..., torch.Tensor]) -> Callable[[], None]:
        rows = shard.layout.tokens
        q, k, v = (torch.randn(rows, heads, DIM, requires_grad=True) for heads in (HEADS, KV_HEADS, KV_HEADS))

        def run() -> None:
            attend(q, k, v).sum().backward()
            q.grad = k.grad = v.grad = None
            dist.barrier()

        return run

    def ring(shard: hetsp.Shard) -> Callable[..., torch.Tensor]:
        return lambda q, k, v: hetsp.sequence_parallel_attention(q, k, v, shard.layout)

    return {
        "all-gather": call(static, lambda q, k, v: gathered(static, q, k, v)),
        "static ring": call(static, ring(static)),
        "planned": call(planned, ring(planned)),
    }


def case(name: str, lengths: list[int]) -> RankedCase:
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    title = f"{name}, {sum(lengths)} tokens, {RANKS} ranks"
    return RankedCase(title, lambda: contenders(lengths), work={"FLOP": 14 * pairs * HEADS * DIM})


if __name__ == "__main__":
    main_on_ranks(RANKS, [case(name, lengths) for name, lengths in CASES.items()])
