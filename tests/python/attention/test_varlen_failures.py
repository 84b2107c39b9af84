"""What has failed in other variable-length attentions, one test each, named after what it guards."""

import itertools

import pytest
import torch

import hetsp_ext as hetsp
from tests.python.attention.reference import Case, gradients, norm_error


def make(lengths_q, lengths_k, heads=2, heads_kv=2, d=16, dv=16, dtype=torch.float64, seed=0, **options) -> Case:
    torch.manual_seed(seed)

    def rows(lengths, heads, dim):
        return torch.randn(sum(lengths), heads, dim, dtype=dtype).requires_grad_()

    q, k, v = rows(lengths_q, heads, d), rows(lengths_k, heads_kv, d), rows(lengths_k, heads_kv, dv)
    return Case(q, k, v, list(lengths_q), list(lengths_k), **options)


def check(case: Case, tolerance: float = 1e-12) -> None:
    """Values and gradients against the definition."""
    outputs, truth = case.ours(), case.reference()
    torch.manual_seed(1)
    grads = torch.randn_like(truth[0]), torch.randn_like(truth[1])
    for x, expected in zip(
        [*outputs, *gradients(case, outputs, *grads)], [*truth, *gradients(case, truth, *grads)], strict=True
    ):
        assert norm_error(x, expected) <= tolerance


def test_backward_with_leading_empty_sequences_ends() -> None:
    check(make([0, 0, 1023], [0, 1, 2045], heads=1, heads_kv=1, d=8, dv=8))


@pytest.mark.parametrize("lengths_q", [[0, 5, 3], [5, 0, 3], [5, 3, 0], [0, 0, 0]], ids=str)
@pytest.mark.parametrize("lengths_k", [[0, 5, 3], [4, 0, 3], [5, 3, 0], [0, 0, 0]], ids=str)
def test_empty_sequences_anywhere(lengths_q: list[int], lengths_k: list[int]) -> None:
    check(make(lengths_q, lengths_k, causal=False))


def test_no_sequences_at_all() -> None:
    case = make([], [])
    out, lse = case.ours()
    assert out.shape == (0, 2, 16)
    assert lse.shape == (2, 0)
    out.sum().backward()
    assert case.k.grad.shape == (0, 2, 16)


def test_max_seqlen_1_with_empty_sequences_and_gqa() -> None:
    check(make([0, 1, 0, 1], [0, 1, 0, 1], heads=6, heads_kv=2))


def test_keyless_rows_have_lse_minus_infinity_and_no_gradient() -> None:
    case = make([9], [4])
    out, lse = case.ours()
    assert (lse[:, :5] == -torch.inf).all()
    assert (out[:5] == 0).all()
    (out.sum() + lse[:, 5:].sum()).backward()
    assert (case.q.grad[:5] == 0).all()
    assert case.q.grad.isfinite().all()
    check(case)


def test_keyless_rows_with_a_sink_have_its_value() -> None:
    case = make([9], [4], sink=torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True))
    assert torch.allclose(case.ours()[1][:, :5], case.sink[:, None].expand(2, 5))
    check(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_very_negative_scores_and_a_masked_first_tile(dtype: torch.dtype) -> None:
    case = make([200], [200], heads=1, heads_kv=1, dtype=dtype, window=(20, -1))
    with torch.no_grad():
        case.q.fill_(-300.0), case.k.copy_(100 + 0.01 * case.k)
    out, lse = case.ours()
    truth = case.to(torch.float64).reference()
    assert (lse < -1e5).all()
    assert torch.allclose(lse.double(), truth[1], rtol=1e-5)
    assert out.isfinite().all()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129])
def test_very_negative_lse_at_every_tail(length: int) -> None:
    # A padded key scored 0 would give e^(0 - lse) = inf in the backward, and inf * 0 = NaN.
    case = make([length], [length], heads=1, heads_kv=1, dtype=torch.float32, causal=False)
    with torch.no_grad():
        case.q.fill_(-10.0), case.k.copy_(10 + 0.01 * case.k)
    out, lse = case.ours()
    assert (lse < -89).all()
    out.sum().backward()
    for x in case.leaves:
        assert x.grad.isfinite().all()


def test_nan_in_the_unused_tail_and_in_the_next_document_stays_there() -> None:
    case = make([70, 30, 20], [70, 30, 20], dtype=torch.float32)
    alone = case.to(torch.float32)
    with torch.no_grad():
        for x in case.leaves:
            x[70:100] = torch.nan
            x[100:] = torch.nan
    case.lengths_q = case.lengths_k = [70, 30]
    alone.lengths_q = alone.lengths_k = [70, 30]
    for c in (case, alone):
        out, lse = c.ours()
        grad = torch.where(torch.arange(120)[:, None, None] < 100, 1.0, torch.nan).expand_as(out)  # and in dout's tail
        torch.autograd.backward([out, lse], [grad, torch.ones_like(lse)])
    assert torch.equal(case.ours()[0][:70], alone.ours()[0][:70])
    for x, y in zip(case.leaves, alone.leaves, strict=True):
        assert torch.equal(x.grad[:70], y.grad[:70])
        assert (x.grad[100:] == 0).all()
    assert (case.ours()[0][100:] == 0).all()


def test_a_visible_nan_comes_out_as_nan() -> None:
    case = make([5], [5], dtype=torch.float32)
    with torch.no_grad():
        case.k[2] = torch.nan
    out, lse = case.ours()
    assert out[2:].isnan().all()
    assert lse[:, 2:].isnan().all()
    assert out[:2].isfinite().all()


def test_results_do_not_depend_on_the_calls_before() -> None:
    first = make([130, 1, 64], [130, 1, 64], dtype=torch.float32)
    before = first.ours()
    many = make([3] * 150, [3] * 150, d=40, dv=24, dtype=torch.float32)
    with torch.no_grad():
        many.q.fill_(torch.nan)
    many.ours()
    assert all(torch.equal(x, y) for x, y in zip(before, first.ours(), strict=True))


def test_eighty_thousand_sequences() -> None:
    lengths = [(i * 7) % 3 for i in range(80_000)]
    case = make(lengths, lengths, heads=1, heads_kv=1, d=4, dv=4, dtype=torch.float32)
    out, lse = case.ours()
    last = make(lengths[-300:], lengths[-300:], heads=1, heads_kv=1, d=4, dv=4, dtype=torch.float32)
    with torch.no_grad():
        for x, y in zip(last.leaves, case.leaves, strict=True):
            x.copy_(y[len(y) - len(x) :])
    assert torch.equal(out[-len(last.q) :], last.ours()[0])
    assert torch.equal(lse[:, -len(last.q) :], last.ours()[1])


def test_expanded_gradient_of_stride_zero() -> None:
    case = make([20, 30], [20, 30], dtype=torch.float64)
    case.ours()[0].sum().backward()
    expanded = [x.grad.clone() for x in case.leaves]
    out = case.to(torch.float64)
    out.ours()[0].backward(torch.ones(50, 2, 16, dtype=torch.float64))
    assert all(torch.equal(x, y.grad) for x, y in zip(expanded, out.leaves, strict=True))


def test_strided_inputs_and_gradients_equal_contiguous_ones() -> None:
    torch.manual_seed(0)
    cu = torch.tensor([0, 33, 60], dtype=torch.int32)
    packed = torch.randn(60, 3, 2, 16, dtype=torch.float64)  # qkv slices
    slices = [packed[:, i] for i in range(3)]
    transposed = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in slices]  # head_dim is not innermost
    grad = torch.randn(60, 16, 2, dtype=torch.float64).transpose(1, 2)
    results = []
    for inputs in (slices, transposed, [x.contiguous() for x in slices]):
        leaves = [x.detach().requires_grad_() for x in inputs]
        out, lse = hetsp.varlen_attention(*leaves, cu, cu, 33, 33)
        results.append([out, lse, *torch.autograd.grad(out, leaves, grad)])
    for other in results[:2]:
        assert all(torch.equal(x, y) for x, y in zip(other, results[2], strict=True))


def test_kv_heads_expanded_by_stride_zero_equal_gqa() -> None:
    case = make([40], [40], heads=4, heads_kv=1, dtype=torch.float64)
    expanded = hetsp.varlen_attention(
        case.q, case.k.expand(40, 4, 16), case.v.expand(40, 4, 16), case.cu([40]), case.cu([40]), 40, 40
    )
    assert all(torch.equal(x, y) for x, y in zip(expanded, case.ours(), strict=True))


def test_lse_is_heads_by_rows_both_ways() -> None:
    # As many heads as rows: a transposed read would go unnoticed by shape checks.
    check(make([4], [4], heads=4, heads_kv=4))


def test_repeats_and_thread_counts_agree_bitwise() -> None:
    case = make([150, 3, 64], [150, 3, 64], heads=4, heads_kv=2, dtype=torch.float32)
    threads, seen = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5, 2, 1):
            torch.set_num_threads(count)
            out, lse = case.ours()
            seen.append([out, lse, *torch.autograd.grad([out.sum() + lse.sum()], case.leaves)])
    finally:
        torch.set_num_threads(threads)
    for other in seen[1:]:
        assert all(torch.equal(x, y) for x, y in zip(seen[0], other, strict=True))


def test_loss_on_lse_alone() -> None:
    case = make([40, 7], [40, 7])
    _, lse = case.ours()
    dq, dk, dv = torch.autograd.grad(lse.sum(), case.leaves)
    _, expected = case.reference()
    wanted = torch.autograd.grad(expected.sum(), case.leaves, allow_unused=True)
    assert torch.allclose(dq, wanted[0], atol=1e-12)
    assert torch.allclose(dk, wanted[1], atol=1e-12)
    assert (dv == 0).all()


@pytest.mark.parametrize(("m", "n"), [(3, 5), (5, 3), (1, 64), (64, 1), (65, 130)])
def test_causal_is_bottom_right_aligned(m: int, n: int) -> None:
    check(make([m], [n]))


def test_rows_past_the_last_sequence_are_empty() -> None:
    case = make([10], [10])
    case.lengths_q, case.lengths_k = [6], [7]
    out, lse = case.ours()
    assert (out[6:] == 0).all()
    assert (lse[:, 6:] == -torch.inf).all()
    out.sum().backward()
    assert (case.q.grad[6:] == 0).all()
    assert (case.k.grad[7:] == 0).all()


@pytest.mark.parametrize("ring", [2, 3, 5])
@pytest.mark.parametrize("length", [7, 31, 61])
def test_partial_results_per_hop_equal_one_call(ring: int, length: int) -> None:
    # bfloat16, keys in `ring` pieces seeded one from the other in float32: one rounding, as in a single call.
    case = make([length], [length], dtype=torch.bfloat16)
    cuts = [length * i // ring for i in range(ring + 1)]
    forward = torch.ops.hetsp.varlen_attention_forward
    seed = (None, None)
    q, k, v = (x.detach() for x in case.leaves)
    for begin, end in itertools.pairwise(cuts):
        segment = torch.tensor([[0, length, begin, end, 0, begin, -1, 0]])
        seed = forward(q, k, v, segment, 0.25, 0.0, None, *seed, True)
    whole = forward(q, k, v, torch.tensor([[0, length, 0, length, 0, 0, -1, 0]]), 0.25, 0.0, None, None, None, True)
    assert norm_error(seed[0], whole[0]) < 2e-7
    assert norm_error(seed[1], whole[1]) < 2e-7
