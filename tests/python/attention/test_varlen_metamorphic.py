"""Relations that hold whatever the numbers: they need no reference and so no tolerance of one."""

import pytest
import torch
from torch import Tensor

import hetsp_ext as hetsp
from tests.support.devices import equal_sums, on_cuda

LENGTHS = [65, 1, 130, 17]


def batch(
    lengths: list[int], dtype: torch.dtype = torch.float32, heads: tuple[int, int] = (4, 2), dim: int = 24
) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(sum(lengths), count, dim).to(dtype).requires_grad_() for count in (heads[0], heads[1], heads[1])]


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], **options) -> tuple[Tensor, Tensor]:
    cu = torch.tensor([0, *lengths]).cumsum(0)
    return hetsp.varlen_attention(q, k, v, cu, cu, max(lengths), max(lengths), **options)


def all_results(inputs: list[Tensor], lengths: list[int], **options) -> list[Tensor]:
    """out, lse (rows first), dq, dk, dv."""
    out, lse = attend(*inputs, lengths, deterministic=True, **options)
    return [out, lse.T, *torch.autograd.grad(out.sum() + lse.sum(), inputs)]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    """out and lse bitwise; gradients, which follow them, as far as equal_sums says."""
    return all(map(torch.equal, a[:2], b[:2])) and all(map(equal_sums, a[2:], b[2:]))


BATCHES = {  # lengths, heads of q and of k, head_dim
    "mixed": (LENGTHS, (4, 2), 24),
    "wide heads": (LENGTHS, (2, 1), 128),
    "many short": ([(7 * i) % 23 for i in range(150)] + [300], (4, 2), 64),  # short ones share a worker's turn
    "one long": ([3, 4200, 64], (1, 1), 16),  # long enough to be shared by workers
    "long and grouped": ([9, 1500, 700, 5], (3, 1), 64),
    "large": ([3, 33] * 480, (2, 2), 64),  # 8 MB a tensor of float32: written past the caches
}
OPTIONS = {
    "causal": {},
    "full": {"causal": False},
    "window": {"causal": False, "window_size": (100, 5)},
    "softcap": {"softcap": 5.0},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", BATCHES)
def test_a_sequence_alone_equals_itself_in_the_batch_bitwise(name: str, options: str, dtype: torch.dtype) -> None:
    lengths, heads, dim = BATCHES[name]
    inputs = batch(lengths, dtype, heads, dim)
    together, begin, seen = all_results(inputs, lengths, **OPTIONS[options]), 0, set()
    for length in lengths:
        end = begin + length
        if length not in seen:  # one of each length
            alone = [x.detach()[begin:end].clone().requires_grad_() for x in inputs]
            assert equal(all_results(alone, [length], **OPTIONS[options]), [x[begin:end] for x in together]), length
        seen.add(length)
        begin = end


def test_order_of_sequences_and_empty_ones_do_not_matter_bitwise() -> None:
    inputs = batch(LENGTHS)
    forwards = all_results(inputs, LENGTHS)
    turned = [torch.cat(x.detach().split(LENGTHS)[::-1]).requires_grad_() for x in inputs]
    backwards = all_results(turned, [*LENGTHS[::-1], 0])
    assert equal([torch.cat(x.split(LENGTHS[::-1])[::-1]) for x in backwards], forwards)


def test_values_of_one_give_one() -> None:
    q, k, v = batch(LENGTHS)
    out, _ = attend(q, k, torch.ones_like(v), LENGTHS)
    # The scalar CUDA kernels add the weights and the weighted values in two orders: float32 sums of at most 130 positive terms.
    allowed = max(LENGTHS) * 2**-24 if on_cuda() else 0.0
    assert (out - 1).abs().max() <= allowed


def test_a_window_beyond_the_length_is_no_window() -> None:
    inputs = batch(LENGTHS)
    assert equal(all_results(inputs, LENGTHS, window_size=(130, -1)), all_results(inputs, LENGTHS))
    full = all_results(inputs, LENGTHS, causal=False)
    assert equal(all_results(inputs, LENGTHS, causal=False, window_size=(1025, 1025)), full)


def test_causal_is_a_right_window_of_zero() -> None:
    inputs = batch(LENGTHS)
    assert equal(all_results(inputs, LENGTHS, causal=False, window_size=(-1, 0)), all_results(inputs, LENGTHS))


def test_gqa_equals_repeated_heads() -> None:
    q, k, v = batch(LENGTHS)
    repeated = [q, *(x.repeat_interleave(2, 1) for x in (k, v))]
    assert equal(list(attend(q, k, v, LENGTHS)), list(attend(*repeated, LENGTHS)))


def test_a_sink_of_minus_infinity_is_no_sink() -> None:
    inputs = batch(LENGTHS)
    assert equal(all_results(inputs, LENGTHS, sink=torch.full((4,), -torch.inf)), all_results(inputs, LENGTHS))


@pytest.mark.parametrize("cut", [1, 63, 64, 100])
def test_keys_cut_in_two_and_merged_equal_one_call(cut: int) -> None:
    q, k, v = (x.double() for x in batch([150]))
    whole = hetsp.segment_attention(q, k, v, torch.tensor([[0, 150, 0, 150, 0, 0, -1, 0]]))
    parts = [
        hetsp.segment_attention(q, k, v, torch.tensor([[0, 150, *keys, 0, keys[0], -1, 0]])) for keys in ((0, cut), (cut, 150))
    ]
    merged = hetsp.merge_attention(*parts[0], *parts[1])
    listed = hetsp.segment_attention(q, k, v, torch.tensor([[0, 150, 0, cut, 0, 0, -1, 0], [0, 150, cut, 150, 0, cut, -1, 0]]))
    for result in (merged, listed):
        assert all(torch.allclose(x, y, rtol=1e-12, atol=1e-12) for x, y in zip(result, whole, strict=True))


def test_a_shared_prefix_is_two_segments_per_document() -> None:
    # Two answers of 20 and 30 tokens after one prompt of 40: each row sees the prompt and its own answer's past.
    torch.manual_seed(0)
    q, k, v = (torch.randn(90, 2, 16, dtype=torch.float64) for _ in range(3))
    shared = torch.tensor(
        [
            [0, 40, 0, 40, 0, 0, -1, 0],
            [40, 60, 0, 40, 40, 0, -1, 0],
            [40, 60, 40, 60, 40, 40, -1, 0],
            [60, 90, 0, 40, 40, 0, -1, 0],
            [60, 90, 60, 90, 40, 40, -1, 0],
        ]
    )
    out, lse = hetsp.segment_attention(q, k, v, shared)
    for begin, end in ((40, 60), (60, 90)):
        rows = torch.cat([torch.arange(40), torch.arange(begin, end)])
        whole, whole_lse = attend(q[rows], k[rows], v[rows], [len(rows)])
        assert torch.allclose(out[begin:end], whole[40:], rtol=1e-12, atol=1e-12)
        assert torch.allclose(lse[:, begin:end], whole_lse[:, 40:], rtol=1e-12, atol=1e-12)
