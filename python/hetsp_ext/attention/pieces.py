"""Attention to keys in several pieces, some of which may still be on their way: docs/attention_pieces.md."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidArgument
from . import _registration
from ._call import call


def pieces_attention(
    q: Tensor,
    pieces: Sequence[tuple[Tensor, Tensor]],
    segments: Tensor,
    ready: Tensor | None = None,
    epochs: Sequence[int | None] = (),
    softmax_scale: float | None = None,
    softcap: float = 0.0,
    sink: Tensor | None = None,
    patience: float = 60.0,
    lists: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention to the keys of all pieces in one call, which begins with a piece when its flag says that it has arrived.

    The pieces are one axis of keys, one after another. Contributions are added piece by piece in the order of the list,
    whatever the order of arrival: equal inputs give equal bits. Not differentiable; docs/attention_pieces.md has the backward.

    Args:
        q: (total_q, heads, head_dim); float64, float32, bfloat16 or float16; it has arrived.
        pieces: 1 to 16 pairs k (rows, heads_kv, head_dim), v (rows, heads_kv, head_dim_v) of q's dtype on its device, last
            dimension contiguous. Numbers of a piece may change until its flag is set.
        segments: (count, 8) int64 as in `segment_attention`, key rows on the axis of all pieces. One may reach over several.
        ready: (pieces,) int32 flags, counters that whoever brings the pieces sets behind them; None: no piece is waited for.
        epochs: what each piece's flag has to reach, as numbers of 32 bits that wrap; None: it is here. Empty: all are.
        softmax_scale, softcap, sink: as in `varlen_attention`.
        patience: seconds to wait for one piece.
        lists: attention_lists of these segments, total_q and the rows of all pieces together; None: made here.

    Returns:
        out (total_q, heads, head_dim_v) in q's dtype, lse (heads, total_q) as in `varlen_attention`, and late (1,) int32: 0, or
        1 + a piece that a GPU has waited for in vain. All of out and lse are NaN then.

    Raises:
        InvalidArgument: for arguments that cannot be honoured, naming the value and what is allowed.
        NotArrived: on the CPU, for a piece that did not come in time; names it, its flag and its epoch.
    """
    if not pieces:
        raise InvalidArgument("pieces is empty, must hold 1 to 16 pairs of k and v")
    for index, pair in enumerate(pieces):
        for name, tensor in zip(("k", "v"), pair, strict=True):
            if tensor.device != q.device:
                raise InvalidArgument(f"{name}[{index}] is on {tensor.device}, must be on {q.device} like q")
            if tensor.dim() != 3:
                raise InvalidArgument(f"{name}[{index}] has shape {list(tensor.shape)}, must be (rows, heads_kv, head_dim)")
    if q.dim() != 3:
        raise InvalidArgument(f"q has shape {list(q.shape)}, must be (tokens, heads, head_dim)")
    for name, other in (("ready", ready), ("sink", sink)):
        if other is not None and other.device != q.device:
            raise InvalidArgument(f"{name} is on {other.device}, must be on {q.device} like q")
    if sink is not None:
        sink = sink.to(_registration.accumulate_dtype(q.dtype))
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    k, v = ([pair[side] for pair in pieces] for side in (0, 1))
    wanted = [-1 if epoch is None else epoch for epoch in epochs]
    return call(
        _registration.ops.pieces_attention_forward, q, k, v, segments, ready, wanted, scale, softcap, sink, None, None, False,
        patience, lists,
    )  # fmt: skip


def piece_segments(segments: Tensor, begin: int, rows: int) -> Tensor:
    """The part of each segment whose keys are rows [begin, begin + rows) of the axis of all pieces, in rows of that piece.

    (count, 8) int64 like `segments`; a segment without keys there stays, with none. With lse and `attention_delta` of the whole
    it makes the backward of one piece: torch.ops.hetsp.varlen_attention_backward on the piece's own k and v.
    """
    cut = segments.clone()
    first, last = segments[:, 2] - begin, segments[:, 3] - begin
    cut[:, 2], cut[:, 3] = first.clamp(min=0), last.clamp(max=rows)
    cut[:, 5] += (-first).clamp(min=0)
    none = cut[:, 3] <= cut[:, 2]
    cut[:, 2:4] = torch.where(none[:, None], 0, cut[:, 2:4])
    return cut
