"""Fake, autograd and autocast registrations of the attention ops. No arithmetic beyond the merge's own small gradient."""

from typing import Any

import torch
from torch import Tensor

from .. import _native as _native  # loads torch.ops.hetsp

ops = torch.ops.hetsp


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for all others: the type of lse, sinks, seeds and partial results."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def repeatable(asked: bool) -> bool:
    """Whether a backward must be bitwise repeatable: where its caller asks for it, or torch's own switch does."""
    return asked or torch.are_deterministic_algorithms_enabled()


@torch.library.register_fake("hetsp::cu_seqlens_to_segments")
def _(
    cu_q: Tensor,
    cu_k: Tensor,
    left: int,
    right: int,
    total_q: Any,
    total_k: Any,
    max_q: Any,
    max_k: Any,
    used_q: Tensor | None = None,
    used_k: Tensor | None = None,
) -> Tensor:
    return cu_q.new_empty((cu_q.shape[0] - 1, 8), dtype=torch.int64)


@torch.library.register_fake("hetsp::attention_lists")
def _(segments: Tensor, total_q: Any, total_k: Any) -> Tensor:
    return segments.new_empty(
        (16384 + total_q + total_k + 192 * segments.shape[0],), dtype=torch.uint8
    )  # params.h: lists_bytes


@torch.library.register_fake("hetsp::varlen_attention_forward")
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Tensor,
    softmax_scale: float,
    softcap: float,
    sink: Tensor | None,
    seed_out: Tensor | None,
    seed_lse: Tensor | None,
    partial: bool,
    deterministic: bool = False,
    lists: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    acc = accumulate_dtype(q.dtype)
    out = q.new_empty((q.shape[0], q.shape[1], v.shape[2]), dtype=acc if partial else q.dtype)
    return out, q.new_empty((q.shape[1], q.shape[0]), dtype=acc)


@torch.library.register_fake("hetsp::pieces_attention_forward")
def _(
    q: Tensor,
    k: list[Tensor],
    v: list[Tensor],
    segments: Tensor,
    ready: Tensor | None,
    epochs: list[int],
    softmax_scale: float,
    softcap: float,
    sink: Tensor | None,
    seed_out: Tensor | None,
    seed_lse: Tensor | None,
    partial: bool,
    patience: float,
    lists: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    acc = accumulate_dtype(q.dtype)
    out = q.new_empty((q.shape[0], q.shape[1], v[0].shape[2]), dtype=acc if partial else q.dtype)
    return out, q.new_empty((q.shape[1], q.shape[0]), dtype=acc), q.new_empty((1,), dtype=torch.int32)


@torch.library.register_fake("hetsp::varlen_attention_backward")
def _(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    segments: Tensor,
    softmax_scale: float,
    softcap: float,
    sink: Tensor | None,
    partial: bool,
    delta: Tensor | None = None,
    deterministic: bool = False,
    lists: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    acc = accumulate_dtype(q.dtype)
    dq, dk, dv = (torch.empty(x.shape, dtype=acc if partial else x.dtype, device=x.device) for x in (q, k, v))
    return dq, dk, dv, q.new_empty((0 if sink is None else q.shape[1],), dtype=acc)


@torch.library.register_fake("hetsp::attention_delta")
def _(grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, lse: Tensor) -> Tensor:
    return lse.new_empty(lse.shape)


@torch.library.register_fake("hetsp::merge_attention")
def _(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(out_a.shape, dtype=out_a.dtype, device=out_a.device), lse_a.new_empty(lse_a.shape)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, segments, softmax_scale, softcap, sink, seed_out, seed_lse, _, deterministic, lists = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, segments, sink, seed_out, seed_lse, lists, *output)
    ctx.scores, ctx.deterministic = (softmax_scale, softcap), deterministic


def _forward_backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, segments, sink, seed_out, seed_lse, lists, out, lse = ctx.saved_tensors
    if grad_out is None and grad_lse is None:
        return (None,) * 12
    given = torch.zeros_like(out) if grad_out is None else grad_out
    dq, dk, dv, dsink = ops.varlen_attention_backward(
        given, grad_lse, q, k, v, out, lse, segments, *ctx.scores, sink, False, None, ctx.deterministic, lists
    )
    dseed_out, dseed_lse = (None, None)
    if seed_out is not None and (ctx.needs_input_grad[7] or ctx.needs_input_grad[8]):
        dseed_out, dseed_lse = _part_gradient(given, grad_lse, seed_out, seed_lse, out, lse)
    return dq, dk, dv, None, None, None, None if sink is None else dsink, dseed_out, dseed_lse, None, None, None


def _part_gradient(
    grad_out: Tensor, grad_lse: Tensor | None, part_out: Tensor, part_lse: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of one part (out, lse) of a merge: w dO and w (dO . (o_part - o) + dLSE), w = e^(lse_part - lse)."""
    empty = part_lse == -torch.inf
    weight = torch.where(empty, 0.0, torch.exp(part_lse - lse))  # (heads, total_q)
    given = grad_out.to(part_out.dtype)
    along = ((part_out - out) * given).sum(-1).transpose(0, 1)
    if grad_lse is not None:
        along = along + grad_lse
    per_row = weight.transpose(0, 1).unsqueeze(-1)
    return torch.where(per_row == 0, 0.0, per_row * given), torch.where(weight == 0, 0.0, weight * along)


def _save_merge(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *output)


def _merge_backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    out_a, lse_a, out_b, lse_b, out, lse = ctx.saved_tensors
    given = torch.zeros_like(out) if grad_out is None else grad_out
    return (
        *_part_gradient(given, grad_lse, out_a, lse_a, out, lse),
        *_part_gradient(given, grad_lse, out_b, lse_b, out, lse),
    )


def _no_second_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError("hetsp.varlen_attention has no second derivative: its backward cannot be differentiated")


def _no_derivative(ctx: Any, *grads: Tensor | None) -> None:
    raise NotImplementedError(
        "hetsp.pieces_attention has no derivative: give each piece's part of the segments (hetsp.piece_segments), lse and "
        "hetsp.attention_delta to torch.ops.hetsp.varlen_attention_backward"
    )


torch.library.register_autograd("hetsp::pieces_attention_forward", _no_derivative)
torch.library.register_autograd("hetsp::varlen_attention_forward", _forward_backward, setup_context=_save_forward)
torch.library.register_autograd("hetsp::varlen_attention_backward", _no_second_derivative)
torch.library.register_autograd("hetsp::attention_delta", _no_second_derivative)
torch.library.register_autograd("hetsp::merge_attention", _merge_backward, setup_context=_save_merge)

_library = torch.library.Library("hetsp", "IMPL")  # lives as long as the module: its registrations end with it


def _register_autocast(device: str) -> None:
    key = getattr(torch._C.DispatchKey, f"Autocast{device.upper()}")

    def forward(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        """Only q, k, v are cast: sink, seeds and lse keep the accumulate type, which is what they are for."""
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            if q.dtype != torch.float64:
                dtype = torch.get_autocast_dtype(device)
                q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
            return ops.varlen_attention_forward(q, k, v, *rest)

    _library.impl("varlen_attention_forward", forward, f"Autocast{device.upper()}")


for _device in ("cpu", "cuda"):
    _register_autocast(_device)
