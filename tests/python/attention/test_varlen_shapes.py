"""varlen_attention against float64 maths on shapes and strides that hypothesis chooses, and shrinks where they fail.

Rows past the last sequence are NaN, in the gradient too. Every operand has strides of its own.
"""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.python.attention.bounds import check_against_maths
from tests.python.attention.reference import Case

LENGTHS = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257, 511, 513, 1023, 1025]
MOST = 1400  # tokens of a batch
DIMS = [(16, 16), (17, 17), (40, 40), (64, 64), (72, 72), (80, 64), (96, 96), (128, 128), (192, 128), (256, 256)]
WINDOWS = [(-1, -1), (0, 0), (1, 0), (0, -1), (7, 3), (64, 64), (-1, 2), (1025, 1025)]
LAYOUTS = ["packed", "slice", "head_major", "gaps", "one_head", "dim_outside"]


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers (one_head: those of the first head, for all) under other strides, with NaN in between."""
    rows, heads, dim = x.shape
    if layout == "slice":  # of a fused projection
        wide = x.new_full((rows, heads + 3, dim), torch.nan)
        wide[:, 1 : 1 + heads] = x
        return wide[:, 1 : 1 + heads]
    if layout == "head_major":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "gaps":
        wide = x.new_full((2 * rows, heads, dim + 5), torch.nan)
        wide[::2, :, 2 : 2 + dim] = x
        return wide[::2, :, 2 : 2 + dim]
    if layout == "one_head":
        return x[:, :1].expand(rows, heads, dim)
    if layout == "dim_outside":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x


@st.composite
def batches(draw: st.DrawFn) -> tuple[Case, Tensor, Tensor]:
    """A case, and gradients for its out and lse."""
    torch.manual_seed(draw(st.integers(0, 2**20), label="seed"))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
    lengths_q = draw(st.lists(st.sampled_from(LENGTHS), max_size=5).filter(lambda lengths: sum(lengths) <= MOST))
    lengths_k = list(lengths_q)
    if draw(st.booleans(), label="own lengths of k"):
        lengths_k = [draw(st.sampled_from(LENGTHS[:19])) for _ in lengths_q]
    heads, heads_kv = draw(st.sampled_from([(1, 1), (2, 2), (6, 2), (8, 1)]))
    d, dv = draw(st.sampled_from(DIMS) | st.tuples(st.integers(1, 80), st.integers(1, 80)))
    tail = draw(st.sampled_from([0, 3]), label="rows past the last sequence")
    with_sink = draw(st.booleans(), label="sink")

    def rows(name: str, used: int, heads: int, dim: int, poison: bool = True) -> Tensor:
        x = torch.randn(used + tail, heads, dim, dtype=torch.float64).to(dtype)
        if poison:
            x[used:] = torch.nan
        return laid_out(x, draw(st.sampled_from(LAYOUTS), label=name))

    q = rows("q", sum(lengths_q), heads, d)
    k, v = (rows(name, sum(lengths_k), heads_kv, dim) for name, dim in (("k", d), ("v", dv)))
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    case = Case(
        *(x.detach().requires_grad_() for x in (q, k, v)),
        lengths_q,
        lengths_k,
        scale=draw(st.sampled_from([None, 0.4, -0.1]), label="scale"),
        causal=draw(st.booleans(), label="causal"),
        window=draw(st.sampled_from(WINDOWS) | st.tuples(st.integers(-1, 40), st.integers(-1, 40)), label="window"),
        softcap=draw(st.sampled_from([0.0, 15.0, 1.5]), label="softcap"),
        sink=torch.randn(heads, dtype=acc).requires_grad_() if with_sink else None,
        int64=draw(st.booleans(), label="int64"),
    )
    # A row without keys has an output where there is a sink, and so a gradient to read.
    grad_out = rows("dout", sum(lengths_q), heads, dv, poison=not with_sink)
    return case, grad_out, torch.randn(heads, sum(lengths_q) + tail, dtype=acc)


@given(batches())
@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_any_shape_and_stride_is_at_most_twice_as_far_as_the_maths(batch: tuple[Case, Tensor, Tensor]) -> None:
    check_against_maths(*batch)
