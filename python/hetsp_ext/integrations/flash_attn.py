"""The functions of the package flash_attn (version 2) on our attention: same names, same arguments in the same order.

    from hetsp_ext.integrations.flash_attn import flash_attn_varlen_func

    install()  # or: every later `import flash_attn` and `import flash_attn_interface` finds these functions

They run on the CPU, in float32 and float64 as well, for any head_dim, differentiable in lse too. Refused by name when set:
dropout_p, alibi_slopes, block_table. Rows without a visible key have lse -inf, where flash_attn 2 says +inf. return_attn_probs
gives (out, lse, None): the weights never exist. On the CPU gradients are always deterministic.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from torch import Tensor

from ..errors import InvalidArgument
from ._flash_attention import dense, packed, parts, refuse

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "install",
    "uninstall",
]

__version__ = "2.8.3+hetsp"  # whose interface this is; callers of flash_attn ask for it

Result = Tensor | tuple[Tensor, Tensor, None]


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Result:
    """Attention of packed sequences, q (total_q, heads, dim), k and v (total_k, heads_kv, dim): see hetsp.varlen_attention."""
    refuse(dropout_p=dropout_p, alibi_slopes=alibi_slopes, block_table=block_table)
    out, lse = packed(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        softmax_scale,
        causal,
        window_size,
        softcap,
        deterministic,
    )
    return (out, lse, None) if return_attn_probs else out


def flash_attn_varlen_kvpacked_func(
    q: Tensor,
    kv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *args: Any,
    **kwargs: Any,
) -> Result:
    """flash_attn_varlen_func with kv (total_k, 2, heads_kv, dim), and no block_table."""
    k, v = parts("kv", kv, 1, 2)
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *args, **kwargs)


def flash_attn_varlen_qkvpacked_func(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, *args: Any, **kwargs: Any) -> Result:
    """flash_attn_varlen_func with qkv (total, 3, heads, dim), and no block_table."""
    q, k, v = parts("qkv", qkv, 1, 3)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, *args, **kwargs)


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Result:
    """Attention of a dense batch: q (batch, rows, heads, dim), k and v (batch, keys, heads_kv, dim)."""
    refuse(dropout_p=dropout_p, alibi_slopes=alibi_slopes)
    out, lse = dense(q, k, v, softmax_scale, causal, window_size, softcap, deterministic)
    return (out, lse, None) if return_attn_probs else out


def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, *args: Any, **kwargs: Any) -> Result:
    """flash_attn_func with kv (batch, keys, 2, heads_kv, dim)."""
    k, v = parts("kv", kv, 2, 2)
    return flash_attn_func(q, k, v, *args, **kwargs)


def flash_attn_qkvpacked_func(qkv: Tensor, *args: Any, **kwargs: Any) -> Result:
    """flash_attn_func with qkv (batch, rows, 3, heads, dim)."""
    q, k, v = parts("qkv", qkv, 2, 3)
    return flash_attn_func(q, k, v, *args, **kwargs)


def stand_ins() -> dict[str, ModuleType]:
    from . import flash_attn_interface

    here = sys.modules[__name__]
    return {"flash_attn": here, "flash_attn.flash_attn_interface": here, "flash_attn_interface": flash_attn_interface}


def install() -> None:
    """Makes `import flash_attn` and `import flash_attn_interface` mean these modules, until uninstall().

    Raises:
        InvalidArgument: where the real ones are imported already; nothing is changed then.
    """
    for name, module in stand_ins().items():
        present = sys.modules.get(name, module)
        if present is not module:
            raise InvalidArgument(
                f"{name} is imported already, from {getattr(present, '__file__', None)}; install() must come before"
            )
    sys.modules.update(stand_ins())


def uninstall() -> None:
    """Takes back install(); what has been imported from the modules stays what it is."""
    for name, module in stand_ins().items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
