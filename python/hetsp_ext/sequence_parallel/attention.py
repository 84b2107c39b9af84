"""Attention over sequences that are shared by several ranks, as one differentiable function."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..errors import InvalidArgument
from .layout import ShardLayout, Window
from .walker import BackwardWalker, ForwardWalker

__all__ = ["sequence_parallel_attention"]


# Messages cannot be traced: the graph breaks at what this decorates and nowhere else. torch.compiler.disable does so, too, but
# imports torch._dynamo where it decorates, a second or two of every start; the form that torch uses itself waits for a call.
_untraced: Any = getattr(torch, "_disable_dynamo", torch.compiler.disable)


class _SequenceParallelAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        sink: torch.Tensor | None,
        layout: ShardLayout,
        window: Window,
        scale: float,
        softcap: float,
    ) -> torch.Tensor:
        out, lse = ForwardWalker(layout, q, k, v, window, scale, softcap).run(sink)
        ctx.save_for_backward(q, k, v, out, lse, sink)
        ctx.layout, ctx.window, ctx.scale, ctx.softcap = layout, window, scale, softcap
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse, sink = ctx.saved_tensors
        acc_sink = None if sink is None else sink.to(lse.dtype)
        walker = BackwardWalker(ctx.layout, q, k, v, ctx.window, ctx.scale, ctx.softcap)
        dq, dk, dv, dsink = walker.run(grad_out, out, lse, acc_sink)
        return dq, dk, dv, None if sink is None or dsink is None else dsink.to(sink.dtype), None, None, None, None


@_untraced
def sequence_parallel_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: ShardLayout,
    *,
    softmax_scale: float | None = None,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    sink: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of this rank's tokens to all visible tokens of their sequences, wherever those lie.

    Must be called by every rank of the group that holds tokens of the micro-batch, the same number of times and in the same
    order (as the layers of one model are). Works under torch.utils.checkpoint, DDP and FSDP.

    Args:
        q: [layout.tokens, heads, head_dim], rows in the order of layout.pieces.
        k: [layout.tokens, kv_heads, head_dim]; kv_heads divides heads.
        v: [layout.tokens, kv_heads, head_dim_v].
        layout: of the shard (`hetsp.shard(...)[i].layout`).
        softmax_scale: default head_dim ** -0.5.
        causal: a token sees only tokens up to its own position in its sequence.
        window_size: tokens visible to the left and right; -1: unbounded.
        softcap: scores become softcap * tanh(score / softcap); 0: off.
        sink: [heads], a logit per head that takes part in the softmax and has no value.

    Returns:
        [layout.tokens, heads, head_dim_v] in q's dtype.

    Raises:
        InvalidArgument: a shape, dtype or option that cannot be; names the value.
        PeerLost: a rank died; names it.

    Source: ring attention (arXiv 2310.01889) with the zigzag cut, on any number of rings at once.
    """
    if not (q.dim() == k.dim() == v.dim() == 3 and q.shape[0] == k.shape[0] == v.shape[0] == layout.tokens):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (q, k, v))
        raise InvalidArgument(f"q, k, v have shapes {shapes}; the layout holds {layout.tokens} tokens on rank {layout.rank}")
    left, right = (int(side) for side in window_size)
    if left < -1 or right < -1:
        raise InvalidArgument(f"window_size is {tuple(window_size)}; each side must be at least -1")
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (tensor.to(dtype) for tensor in (q, k, v))
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else float(softmax_scale)
    return _SequenceParallelAttention.apply(q, k, v, sink, layout, (left, 0 if causal else right), scale, float(softcap))
