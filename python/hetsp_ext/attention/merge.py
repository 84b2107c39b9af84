"""Joins partial attention results over disjoint key sets."""

from torch import Tensor

from . import _registration
from ._call import call


def merge_attention(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The attention over the union of two disjoint key sets, from the results over each.

    lse = ln(e^lse_a + e^lse_b), out = e^(lse_a - lse) out_a + e^(lse_b - lse) out_b. A part with lse -inf is empty and its
    out is not read; two empty parts give out 0 and lse -inf. Differentiable in all four.

    Args:
        out_a, out_b: (total_q, heads, head_dim_v), float32 or float64; last dimension contiguous for speed.
        lse_a, lse_b: (heads, total_q), same dtype, natural logarithm.

    Returns:
        out: (total_q, heads, head_dim_v); lse: (heads, total_q).

    Raises:
        InvalidArgument: where dtypes, devices or shapes do not fit, naming the tensor, what it has and what it must have.
    """
    return call(_registration.ops.merge_attention, out_a, lse_a, out_b, lse_b)
