"""Variable-length attention: packed batches by cu_seqlens, or any list of segments."""

from typing import Literal, overload

from torch import Tensor

from ..errors import InvalidArgument
from . import _registration
from ._call import call


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Tensor,
    softmax_scale: float | None,
    softcap: float,
    sink: Tensor | None,
    return_lse: bool,
    deterministic: bool,
    lists: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    if softmax_scale is None:
        softmax_scale = q.shape[-1] ** -0.5
    if sink is not None:
        sink = sink.to(_registration.accumulate_dtype(q.dtype))
    out, lse = call(
        _registration.ops.varlen_attention_forward, q, k, v, segments, softmax_scale, softcap, sink, None, None, False,
        _registration.repeatable(deterministic), lists,
    )  # fmt: skip
    return (out, lse) if return_lse else out


def _check(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> None:
    """What the native checks come too late for: the dispatcher has chosen a device by then."""
    for name, tensor in (("q", q), ("k", k), ("v", v), ("sink", q if sink is None else sink)):
        if tensor.device != q.device:
            raise InvalidArgument(f"{name} is on {tensor.device}, must be on {q.device} like q")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 3:
            raise InvalidArgument(f"{name} has shape {list(tensor.shape)}, must be (tokens, heads, head_dim)")


@overload
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    sink: Tensor | None = None,
    deterministic: bool = False,
    return_lse: Literal[True] = True,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...


@overload
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    sink: Tensor | None = None,
    deterministic: bool = False,
    *,
    return_lse: Literal[False],
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> Tensor: ...


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    sink: Tensor | None = None,
    deterministic: bool = False,
    return_lse: bool = True,
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of a batch of sequences packed one after another, each on its own; names as in flash-attn.

    Row i of a sequence with m queries and n keys sees key j iff -left <= j - (i + n - m) <= right (bottom-right aligned).
    A row that sees no key gives out 0, lse -inf (the sink's value with a sink) and zero gradients, and so does a row past
    cu_seqlens[-1]; rows past it are never read. out and lse are differentiable once, in q, k, v and sink.

    Args:
        q: (total_q, heads, head_dim); float64, float32, bfloat16 or float16; any outer strides, last dimension contiguous
            (else it is copied). Under autocast q, k, v are cast to its dtype.
        k: (total_k, heads_kv, head_dim), heads a multiple of heads_kv: query head a reads key head a // (heads / heads_kv).
        v: (total_k, heads_kv, head_dim_v).
        cu_seqlens_q, cu_seqlens_k: (sequences + 1,) int32 or int64, from 0, never decreasing, at most the rows of q and k.
        max_seqlen_q, max_seqlen_k: tokens, upper bounds on the sequence lengths.
        softmax_scale: factor of q . k; None: head_dim ** -0.5.
        causal: sets window_size[1] to 0.
        window_size: (left, right) in tokens; -1: unbounded.
        softcap: c > 0 replaces each score x by c tanh(x / c); 0: off.
        sink: (heads,) logits that join each row's softmax after its keys and carry no value; None: none.
        deterministic: bitwise equal gradients in every run, also asked for by torch.use_deterministic_algorithms. Always so
            on the CPU; on a GPU dq may otherwise differ in its last bits, where that is faster. out and lse never differ.
        return_lse: also return the logarithm of the softmax's denominator.
        seqused_q, seqused_k: (sequences,) of cu_seqlens' dtype: only so many first rows of each sequence take part, and the
            mask is aligned at their ends; the other rows are as rows past cu_seqlens[-1]. None: all.

    Returns:
        out: (total_q, heads, head_dim_v) in q's dtype, and with return_lse lse: (heads, total_q), natural logarithm, float32
        (float64 for float64 inputs).

    Raises:
        InvalidArgument: for arguments that cannot be honoured, naming the value and what is allowed.
    """
    _check(q, k, v, sink)
    segments = varlen_segments(
        cu_seqlens_q,
        cu_seqlens_k,
        q.shape[0],
        k.shape[0],
        max_seqlen_q,
        max_seqlen_k,
        causal,
        window_size,
        seqused_q,
        seqused_k,
    )
    return _attend(q, k, v, segments, softmax_scale, softcap, sink, return_lse, deterministic)


def varlen_segments(
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    total_q: int,
    total_k: int,
    max_seqlen_q: int,
    max_seqlen_k: int,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    seqused_q: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> Tensor:
    """The segments of `segment_attention` that `varlen_attention` makes of these arguments: (sequences, 8) int64.

    Layers that attend alike may share them, and their attention_lists. total_q, total_k: rows of q and of k.

    Raises:
        InvalidArgument: as `varlen_attention`.
    """
    left, right = window_size
    return call(
        _registration.ops.cu_seqlens_to_segments, cu_seqlens_q, cu_seqlens_k, left, 0 if causal else right, total_q, total_k,
        max_seqlen_q, max_seqlen_k, seqused_q, seqused_k,
    )  # fmt: skip


def attention_lists(segments: Tensor, total_q: int, total_k: int) -> Tensor:
    """What a GPU makes of `segments` before it attends, for every call on them: forward and backward, of all layers of a step.

        segments = hetsp.varlen_segments(cu, cu, rows, rows, longest, longest)
        lists = hetsp.attention_lists(segments, rows, rows)
        for layer in layers:  # each, and its backward, would make them anew: some 10 to 80 microseconds on the GPU
            out = hetsp.segment_attention(q, k, v, segments, lists=lists)

    Args:
        segments: (count, 8), as in `segment_attention`; not to be changed while the result is in use.
        total_q, total_k: rows of q and of k.

    Returns:
        About a byte a row, on the device of `segments`; only for calls with these segments and as many rows. On the CPU it is
        accepted and not used.
    """
    return call(_registration.ops.attention_lists, segments, total_q, total_k)


def segment_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Tensor,
    softmax_scale: float | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
    return_lse: bool = True,
    deterministic: bool = False,
    lists: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention over any list of segments: pieces of a zigzag, shared prefixes, windows by position, trees.

    A row attends to the visible keys of every segment that holds it, in list order, under one softmax. A key that two
    segments show to the same row counts twice.

    Args:
        q, k, v, softmax_scale, softcap, sink, return_lse, deterministic: as in `varlen_attention`.
        segments: (count, 8) int64: q_begin, q_end, k_begin, k_end (rows), q_pos0, k_pos0 (positions of the first query and
            of the first key), left, right (tokens, -1: unbounded). A key is visible iff
            -left <= key position - query position <= right; causal is right = 0.
        lists: attention_lists of these segments and of as many rows, where several calls share them; None: made here.

    Returns:
        As `varlen_attention`.

    Raises:
        InvalidArgument: as `varlen_attention`, and for segments that leave the tensors.
    """
    _check(q, k, v, sink)
    return _attend(q, k, v, segments, softmax_scale, softcap, sink, return_lse, deterministic, lists)
