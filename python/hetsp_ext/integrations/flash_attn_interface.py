"""The functions of flash_attn_interface (FlashAttention-3) on our attention: same names, same arguments in the same order.

As hetsp_ext.integrations.flash_attn, which also holds install(). seqused_q and seqused_k are honoured. Refused by name when
set: qv, q_descale, k_descale, v_descale, attention_chunk. num_splits, pack_gqa and sm_margin choose how a GPU computes, not
what: they are accepted and mean nothing here.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import InvalidArgument
from ._flash_attention import dense, packed, parts, refuse

__all__ = ["flash_attn_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func"]

Result = Tensor | tuple[Tensor, Tensor]


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int | None, int | None] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Result:
    """Attention of packed sequences, q (total_q, heads, dim), k and v (total_k, heads_kv, dim): see hetsp.varlen_attention."""
    refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale, attention_chunk=attention_chunk)
    out, lse = packed(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal, window_size, softcap,
        deterministic, seqused_q, seqused_k,
    )  # fmt: skip
    return (out, lse) if return_attn_probs else out


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int | None, int | None] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Result:
    """Attention of a dense batch: q (batch, rows, heads, dim), k and v (batch, keys, heads_kv, dim)."""
    refuse(qv=qv, q_descale=q_descale, k_descale=k_descale, v_descale=v_descale, attention_chunk=attention_chunk)
    out, lse = dense(q, k, v, softmax_scale, causal, window_size, softcap, deterministic)
    return (out, lse) if return_attn_probs else out


def flash_attn_qkvpacked_func(
    qkv: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    window_size: tuple[int | None, int | None] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    deterministic: bool = False,
    num_heads_q: int | None = None,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> Result:
    """flash_attn_func with qkv (batch, rows, 3, heads, dim), or with num_heads_q (batch, rows, heads + 2 heads_kv, dim)."""
    if num_heads_q is None:
        q, k, v = parts("qkv", qkv, 2, 3)
    else:
        if qkv.dim() != 4 or qkv.shape[2] <= num_heads_q or (qkv.shape[2] - num_heads_q) % 2:
            raise InvalidArgument(
                f"qkv has shape {list(qkv.shape)}, must be (batch, rows, {num_heads_q} + 2 heads_kv, head_dim) for "
                f"num_heads_q {num_heads_q}"
            )
        heads_kv = (qkv.shape[2] - num_heads_q) // 2
        q, k, v = qkv.split([num_heads_q, heads_kv, heads_kv], dim=2)
    return flash_attn_func(
        q, k, v, softmax_scale, causal, None, q_descale, k_descale, v_descale, window_size, attention_chunk, softcap,
        1, None, deterministic, sm_margin, return_attn_probs,
    )  # fmt: skip
