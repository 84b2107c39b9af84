"""torch's own `torch.nn.attention.varlen.varlen_attn`, forward and backward, on the CPU, where torch has no kernel for it.

    torch_attention.activate()
    out = varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, window_size=(-1, 0))  # causal
    torch_attention.deactivate()  # torch's own answer is back; or use `with activated():`

torch keeps a registry of flash attention implementations; an active one takes over aten::_flash_attention_forward, its
in-place sibling and _flash_attention_backward. Ours does for the CPU, and for CUDA where both this package and torch were
compiled for it; scaled_dot_product_attention's flash backend on CUDA calls the same operators in a dense form, served as well.

The operators have grown by a keyword in most releases of torch: their positional part is taken as it has stood since 2.10, the
rest by name, and a keyword that is set and means nothing here is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import attention as torch_registry

import hetsp_ext

from ..attention._call import call
from ..errors import InvalidArgument

__all__ = ["NAME", "activate", "activated", "deactivate"]

NAME = "HETSP"

# Keywords that are honoured. num_splits is: any number of splits gives the result that one split gives.
HONOURED = frozenset({"scale", "window_size_left", "window_size_right", "seqused_k", "num_splits"})


class Registration:
    """Our kernels in torch's dispatcher, until remove(); torch's registry holds one and calls it."""

    def __init__(self, devices: list[str]) -> None:
        self._library: torch.library.Library | None = torch.library.Library("aten", "IMPL")
        for device in devices:
            for name, kernel in KERNELS.items():
                if hasattr(torch.ops.aten, name):  # torch before 2.13 has no in-place form
                    self._library.impl(name, kernel, device)

    @property
    def live(self) -> bool:
        return self._library is not None

    def remove(self) -> None:
        if self._library is not None:
            self._library._destroy()
            self._library = None


# The dispatcher is one per process, and so is what stands in it. torch 2.10 forgets how to take it out; this does not.
_registration: Registration | None = None


def devices() -> list[str]:
    """Dispatch keys that our backends can serve."""
    compiled, torch_has_cuda, _ = torch.ops.hetsp.cuda_info()
    return ["CPU", "CUDA"] if compiled and torch_has_cuda else ["CPU"]


def register() -> Registration:
    """What torch's registry calls to activate us."""
    global _registration
    if _registration is not None:
        _registration.remove()
    _registration = Registration(devices())
    return _registration


def activate() -> None:
    """Makes hetsp_ext torch's flash attention implementation, in place of one activated before; a second call changes nothing.

    It then also appears in `torch.nn.attention.list_flash_attention_impls()`. Importing this module registers nothing.
    """
    if _registration is not None and _registration.live:
        return
    torch_registry.register_flash_attention_impl(NAME, register_fn=register)
    torch_registry.activate_flash_attention_impl(NAME)


def deactivate() -> None:
    """Gives torch's operators back; changes nothing where hetsp_ext is not active."""
    global _registration
    if _registration is not None and _registration.live:
        restore = getattr(torch_registry, "restore_flash_attention_impl", None)
        if restore is not None:
            restore()
        _registration.remove()
    _registration = None


@contextmanager
def activated() -> Iterator[None]:
    """activate() for a `with` block; afterwards the implementation is active that was before it."""
    before = torch_registry.current_flash_attention_impl()
    activate()
    try:
        yield
    finally:
        if before != NAME:
            deactivate()
            if before is not None:
                torch_registry.activate_flash_attention_impl(before)


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """aten::_flash_attention_forward: out, lse, and three tensors that only dropout would fill."""
    refuse(dropout_p, return_debug_mask, options)
    out, lse = attend(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, is_causal, options)
    out = with_strides_of(query, out)
    seed = torch.zeros(2, dtype=torch.uint64, device=query.device)
    return out, lse, seed, torch.zeros((), dtype=torch.uint64, device=query.device), query.new_empty(0)


def forward_into(
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    **options: Any,
) -> Tensor:
    """aten::_flash_attention_forward_no_dropout_inplace: lse; `out` is filled by a copy."""
    refuse(dropout_p, return_debug_mask, options)
    result, lse = attend(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, is_causal, options)
    if out.shape != result.shape or out.dtype != result.dtype:
        raise InvalidArgument(
            f"out has shape {list(out.shape)} and dtype {out.dtype}, must have {list(result.shape)} and {result.dtype}"
        )
    out.copy_(result)
    return lse


def backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    rng_state: Tensor,
    unused: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten::_flash_attention_backward."""
    refuse(dropout_p, False, options)
    dense = query.dim() == 4
    cu_q, cu_k, max_q, max_k = boundaries(query, key, cum_seq_q, cum_seq_k, max_q, max_k)
    total_q, total_k = (x.shape[:-2].numel() for x in (query, key))
    ops = torch.ops.hetsp
    segments = call(
        ops.cu_seqlens_to_segments, cu_q, cu_k, *window(is_causal, options), total_q, total_k, max_q, max_k,
        None, options.get("seqused_k"),
    )  # fmt: skip
    if dense:  # (batch, heads, rows) -> (heads, batch rows)
        logsumexp = logsumexp.transpose(0, 1).flatten(1)
    rows = [rows_of(x) for x in (grad_out, query, key, value, out)]
    grads = call(
        ops.varlen_attention_backward, rows[0], None, *rows[1:], logsumexp, segments, scale(query, options), 0.0, None, False,
        None, torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    dq, dk, dv = (with_strides_of(x, grad.view(x.shape)) for grad, x in zip(grads, (query, key, value), strict=False))
    return dq, dk, dv


KERNELS = {
    "_flash_attention_forward": forward,
    "_flash_attention_forward_no_dropout_inplace": forward_into,
    "_flash_attention_backward": backward,
}


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    is_causal: bool,
    options: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """(out, lse) of packed (tokens, heads, dim) or dense (batch, rows, heads, dim) tensors."""
    cu_q, cu_k, max_q, max_k = boundaries(query, key, cum_seq_q, cum_seq_k, max_q, max_k)
    # Autocast has had its say above this operator, whose result must have query's dtype.
    with torch.autocast(query.device.type, enabled=False):
        out, lse = hetsp_ext.varlen_attention(
            rows_of(query),
            rows_of(key),
            rows_of(value),
            cu_q,
            cu_k,
            max_q,
            max_k,
            softmax_scale=scale(query, options),
            causal=False,
            window_size=window(is_causal, options),
            seqused_k=options.get("seqused_k"),
        )
    if query.dim() == 4:
        out = out.view(*query.shape[:3], value.shape[-1])
        lse = lse.unflatten(1, query.shape[:2]).transpose(0, 1).contiguous()
    return out, lse


def with_strides_of(like: Tensor, result: Tensor) -> Tensor:
    """`result` laid out as empty_like(like), which torch's fakes promise; a copy where `like` is dense in another order."""
    if like.is_contiguous() or like.shape != result.shape:
        return result
    promised = torch.empty_like(like)
    return result if promised.stride() == result.stride() else promised.copy_(result)


def rows_of(x: Tensor) -> Tensor:
    return x.flatten(0, 1) if x.dim() == 4 else x


def boundaries(
    query: Tensor, key: Tensor, cum_seq_q: Tensor | None, cum_seq_k: Tensor | None, max_q: int, max_k: int
) -> tuple[Tensor, Tensor, int, int]:
    """cu_seqlens and the longest lengths; of a dense batch, whose sequences are all the same length, from its shape."""
    if query.dim() == 4 and cum_seq_q is None and cum_seq_k is None:
        batches = torch.arange(query.shape[0] + 1, device=query.device)
        return batches * query.shape[1], batches * key.shape[1], query.shape[1], key.shape[1]
    for name, cu in (("cum_seq_q", cum_seq_q), ("cum_seq_k", cum_seq_k)):
        if cu is None:
            raise InvalidArgument(f"{name} is None, must be a tensor where query has {query.dim()} dimensions")
    assert cum_seq_q is not None
    assert cum_seq_k is not None
    return cum_seq_q, cum_seq_k, max_q, max_k


def scale(query: Tensor, options: dict[str, Any]) -> float:
    given = options.get("scale")
    return query.shape[-1] ** -0.5 if given is None else given


def window(is_causal: bool, options: dict[str, Any]) -> tuple[int, int]:
    left, right = (options.get(f"window_size_{side}") for side in ("left", "right"))
    return -1 if left is None else left, 0 if is_causal else -1 if right is None else right


def refuse(dropout_p: float, return_debug_mask: bool, options: dict[str, Any]) -> None:
    if dropout_p != 0.0:
        raise InvalidArgument(f"dropout_p is {dropout_p}, must be 0: {NAME} has no dropout")
    if return_debug_mask:
        raise InvalidArgument(f"return_debug_mask is True, must be False: {NAME} never forms the weights")
    for name, value in options.items():
        if name not in HONOURED and value is not None and value is not False:
            what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise InvalidArgument(f"{name} is {what}, must be None: {NAME} honours {', '.join(sorted(HONOURED))}")
