"""hetsp_ext's ring in place of ring-flash-attention's: the same functions, of the same local rows, by plan, proof and walk."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import hetsp_ext as hetsp
from hetsp_ext.sequence_parallel.layout import ShardLayout
from hetsp_ext.sequence_parallel.walker import ForwardWalker
from tests.support.plans import plan_of

# Script of ring-flash-attention -> how its ranks share a sequence. Its striped ring and its llama3 gather cut otherwise than
# our layouts can.
CUTS = {
    "test_ring_flash_attn_func.py": "contiguous",
    "test_ring_flash_attn_varlen_func.py": "contiguous",
    "test_zigzag_ring_flash_attn_func.py": "zigzag",
    "test_zigzag_ring_flash_attn_varlen_func.py": "zigzag",
}


def layout_of(lengths: list[int], cut: str) -> ShardLayout:
    """All sequences, of these whole lengths, on one ring of all ranks."""
    ranks = dist.get_world_size()
    data = plan_of(ranks, lengths, [[(range(len(lengths)), range(ranks))]]).to_dict()
    del data["digest"]
    data["micro_batches"][0][0]["cut"] = cut
    (shard,) = hetsp.shard(hetsp.Plan.from_dict(data), [torch.zeros(n, dtype=torch.int64) for n in lengths])
    return shard.layout


def attend(qkv: Tensor, local_lengths: list[int], cut: str) -> tuple[Tensor, Tensor, None]:
    """(out, lse, None) of local rows (rows, 3, heads, dim), causal."""
    layout = layout_of([n * dist.get_world_size() for n in local_lengths], cut)
    q, k, v = qkv.unbind(1)
    out = hetsp.sequence_parallel_attention(q, k, v, layout)
    with torch.no_grad():
        _, lse = ForwardWalker(layout, q, k, v, (-1, 0), q.shape[-1] ** -0.5, 0.0).run(None)
    return out, lse, None


def install(module: ModuleType, cut: str) -> None:
    """Replaces what the scripts call, all of them with causal=True and no other option."""

    def dense(qkv: Tensor, **options: Any) -> tuple[Tensor, Tensor, None]:
        out, lse, _ = attend(qkv[0], [qkv.shape[1]], cut)  # their batch is 1
        return out[None], lse[None], None

    def packed(qkv: Tensor, cu_seqlens: Tensor, longest: int, **options: Any) -> tuple[Tensor, Tensor, None]:
        return attend(qkv, cu_seqlens.diff().tolist(), cut)

    for prefix in ("ring", "zigzag_ring"):
        setattr(module, f"{prefix}_flash_attn_qkvpacked_func", dense)
        setattr(module, f"{prefix}_flash_attn_varlen_qkvpacked_func", packed)
