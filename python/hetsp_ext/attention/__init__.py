"""Attention over packed sequences of different lengths: torch.ops.hetsp.varlen_attention_* with autograd, fake and autocast."""

from .delta import attention_delta
from .merge import merge_attention
from .pieces import piece_segments, pieces_attention
from .varlen import attention_lists, segment_attention, varlen_attention, varlen_segments

__all__ = [
    "attention_delta",
    "attention_lists",
    "merge_attention",
    "piece_segments",
    "pieces_attention",
    "segment_attention",
    "varlen_attention",
    "varlen_segments",
]
