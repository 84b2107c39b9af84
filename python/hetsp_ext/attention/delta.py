"""The row sums that every part of a backward shares."""

from torch import Tensor

from . import _registration
from ._call import call


def attention_delta(grad_out: Tensor, out: Tensor, lse: Tensor, grad_lse: Tensor | None = None) -> Tensor:
    """D_i = dO_i . o_i - dlse_i of every row and head: all that a backward wants to know of a row's other keys, with lse.

    A backward over a part of the keys is exact alone, given the final lse and D. Where several parts meet the same rows (the
    hops of a ring), D is computed once and handed to each: the last argument of torch.ops.hetsp.varlen_attention_backward,
    which then reads neither out nor grad_lse.

    Args:
        grad_out, out: (total_q, heads, head_dim_v), one dtype: float64, float32, bfloat16 or float16.
        lse: (heads, total_q) of the softmax over all keys; a row with -inf gets 0.
        grad_lse: (heads, total_q), or None: nothing depends on lse. lse and grad_lse are float32 (float64 for float64).

    Returns:
        (heads, total_q), the dtype of lse.

    Raises:
        InvalidArgument: where dtypes, devices or shapes do not fit, naming the tensor, what it has and what it must have.
    """
    return call(_registration.ops.attention_delta, grad_out, grad_lse, out, lse)
