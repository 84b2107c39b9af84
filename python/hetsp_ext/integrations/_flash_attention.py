"""What the functions of flash_attn and flash_attn_interface have in common: one call of our attention, packed or dense."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import hetsp_ext

from ..errors import InvalidArgument


def refuse(**given: Any) -> None:
    """Arguments of the interface that this attention does not have, each of which must keep its neutral value."""
    for name, value in given.items():
        if value is None or (isinstance(value, bool | int | float) and value == 0):
            continue
        what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        neutral = "0" if isinstance(value, int | float) else "None"
        raise InvalidArgument(f"{name} is {what}, must be {neutral}: hetsp_ext has no such attention")


def packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None,
    causal: bool,
    window_size: Any,
    softcap: float,
    deterministic: bool,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(out, lse) of packed sequences; a window's entries are ints, None for unbounded, or the entries of a tensor."""
    left, right = (-1 if entry is None else int(entry) for entry in window_size)
    return hetsp_ext.varlen_attention(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=(left, right),
        softcap=max(softcap, 0.0),  # both interfaces switch it off by 0 or less
        deterministic=deterministic,
        seqused_q=seqused_q,
        seqused_k=seqused_k,
    )


def dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None,
    causal: bool,
    window_size: Any,
    softcap: float,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    """(out, lse) of (batch, rows, heads, dim) tensors: sequences of one length. lse: (batch, heads, rows)."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4 or x.shape[0] != q.shape[0]:
            raise InvalidArgument(f"{name} has shape {list(x.shape)}, must be (batch, rows, heads, head_dim) with q's batch")
    batches = torch.arange(q.shape[0] + 1, device=q.device)
    out, lse = packed(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), batches * q.shape[1], batches * k.shape[1], q.shape[1], k.shape[1],
        softmax_scale, causal, window_size, softcap, deterministic,
    )  # fmt: skip
    return out.unflatten(0, q.shape[:2]), lse.unflatten(1, q.shape[:2]).transpose(0, 1)


def parts(name: str, x: Tensor, axis: int, count: int) -> tuple[Tensor, ...]:
    """The `count` tensors that are stacked along `axis`."""
    if x.dim() != axis + 3 or x.shape[axis] != count:
        before = "total, " if axis == 1 else "batch, rows, "
        raise InvalidArgument(f"{name} has shape {list(x.shape)}, must be ({before}{count}, heads, head_dim)")
    return x.unbind(axis)
