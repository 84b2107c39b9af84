"""Attention over packed sequences of different lengths: torch.ops.hetsp.varlen_attention_* with autograd, fake and autocast."""

from .delta import attention_delta
from .merge import merge_attention
from .varlen import segment_attention, varlen_attention

__all__ = ["attention_delta", "merge_attention", "segment_attention", "varlen_attention"]
