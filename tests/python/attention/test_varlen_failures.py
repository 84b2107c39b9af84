"""What has failed in other variable-length attentions, one test each, named after what it guards."""

import itertools
from collections.abc import Iterable
from threading import Event, Thread

import pytest
import torch

import hetsp_ext as hetsp
from tests.python.attention.reference import Case, gradients, norm_error
from tests.support.devices import equal_sums


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_very_negative_lse_at_every_tail(dtype: torch.dtype) -> None:
    # A padded key scored 0 would give e^(0 - lse) = inf in the backward, and inf * 0 = NaN.
    for length in range(1, 131):
        case = make([length], [length], heads=1, heads_kv=1, dtype=dtype, causal=False)
        with torch.no_grad():
            case.q.fill_(-10.0), case.k.copy_(10 + 0.01 * case.k)
        out, lse = case.ours()
        assert (lse < -89).all(), length
        out.sum().backward()
        for x in case.leaves:
            assert x.grad.isfinite().all(), length


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


@pytest.mark.parametrize("length", [1, 16, 63, 65, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_nan_around_the_used_rows_of_every_operand_is_not_read(length: int, dtype: torch.dtype) -> None:
    torch.manual_seed(length)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    forward, backward = torch.ops.hetsp.varlen_attention_forward, torch.ops.hetsp.varlen_attention_backward

    def inside(x: torch.Tensor, before: int, dim: int) -> torch.Tensor:
        shape = list(x.shape)
        shape[dim] += before + 37
        wide = x.new_full(shape, torch.nan)
        wide.narrow(dim, before, length).copy_(x)
        return wide

    q, k, v, dout = (torch.randn(length, heads, 24).to(dtype) for heads in (4, 2, 2, 4))
    dlse = torch.randn(4, length, dtype=acc)
    alone = torch.tensor([[0, length, 0, length, 0, 0, -1, 0]])
    out, lse = forward(q, k, v, alone, 0.2, 0.0, None, None, None, False)
    grads = backward(dout, dlse, q, k, v, out, lse, alone, 0.2, 0.0, None, False)

    segment = torch.tensor([[5, 5 + length, 3, 3 + length, 0, 0, -1, 0]])
    wide = [inside(q, 5, 0), inside(k, 3, 0), inside(v, 3, 0)]
    wide_out, wide_lse = forward(*wide, segment, 0.2, 0.0, None, None, None, False)
    assert torch.equal(wide_out[5 : 5 + length], out)
    assert torch.equal(wide_lse[:, 5 : 5 + length], lse)
    given = inside(dout, 5, 0), inside(dlse, 5, 1), *wide, inside(out, 5, 0), inside(lse, 5, 1)
    found = backward(*given, segment, 0.2, 0.0, None, False)
    for x, expected, before in zip(found, grads, (5, 3, 3), strict=False):
        assert equal_sums(x[before : before + length], expected)
        assert (x[:before] == 0).all()
        assert (x[before + length :] == 0).all()


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
    # Beyond the 65,535 of a grid's second dimension, and beyond tables of a fixed size.
    lengths = [(i * 7) % 3 for i in range(80_000)]
    case = make(lengths, lengths, heads=1, heads_kv=1, d=4, dv=4, dtype=torch.float32)
    out, lse = case.ours()
    last = make(lengths[-300:], lengths[-300:], heads=1, heads_kv=1, d=4, dv=4, dtype=torch.float32)
    with torch.no_grad():
        for x, y in zip(last.leaves, case.leaves, strict=True):
            x.copy_(y[len(y) - len(x) :])
    alone = last.ours()
    assert torch.equal(out[-len(last.q) :], alone[0])
    assert torch.equal(lse[:, -len(last.q) :], alone[1])
    for x, y in zip(torch.autograd.grad(out.sum(), case.leaves), torch.autograd.grad(alone[0].sum(), last.leaves), strict=True):
        assert torch.equal(x[len(x) - len(y) :], y)


def test_a_sequence_of_a_million_tokens() -> None:
    # More tiles than a grid's second dimension holds; a window keeps the work small.
    tokens, end = 1_000_000, 70
    case = make([tokens], [tokens], heads=1, heads_kv=1, d=4, dv=4, dtype=torch.float32, window=(3, -1))
    out, lse = case.ours()
    # The last rows, with the keys that they see, are a problem of their own.
    last = make([end], [end + 3], heads=1, heads_kv=1, d=4, dv=4, dtype=torch.float64, window=(3, -1))
    with torch.no_grad():
        last.q.copy_(case.q[-end:]), last.k.copy_(case.k[-end - 3 :]), last.v.copy_(case.v[-end - 3 :])
    truth = last.reference()
    assert norm_error(out[-end:], truth[0]) <= 1e-6
    assert norm_error(lse[:, -end:], truth[1]) <= 1e-6
    grads = torch.autograd.grad(out[-end:].sum(), case.leaves)
    for x, expected in zip(grads, torch.autograd.grad(truth[0].sum(), last.leaves), strict=True):
        assert norm_error(x[-len(expected) :], expected) <= 1e-5
        assert (x[: -len(expected)] == 0).all()


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gradient_with_wide_row_strides(dtype: torch.dtype) -> None:
    # As a slice of a fused projection's gradient is: rows 9728 elements apart.
    case = make([40, 25], [40, 25], heads=4, heads_kv=2, dtype=dtype)
    grad = torch.randn(65, 4, 16).to(dtype)
    wide = torch.full((65, 9728), torch.nan, dtype=dtype)
    view = wide[:, 512 : 512 + 64].unflatten(1, (4, 16))
    view.copy_(grad)
    assert view.stride() == (9728, 16, 1)
    for x, y in zip(
        torch.autograd.grad(case.ours()[0], case.leaves, view),
        torch.autograd.grad(case.ours()[0], case.leaves, grad),
        strict=True,
    ):
        assert torch.equal(x, y)


def test_kv_heads_expanded_by_stride_zero_equal_gqa() -> None:
    case = make([40], [40], heads=4, heads_kv=1, dtype=torch.float64)
    expanded = hetsp.varlen_attention(
        case.q, case.k.expand(40, 4, 16), case.v.expand(40, 4, 16), case.cu([40]), case.cu([40]), 40, 40
    )
    assert all(torch.equal(x, y) for x, y in zip(expanded, case.ours(), strict=True))


def test_lse_is_heads_by_rows_both_ways() -> None:
    # As many heads as rows: a transposed read would go unnoticed by shape checks.
    check(make([4], [4], heads=4, heads_kv=4))


def seen_with(threads: Iterable[int], case: Case) -> list[list[torch.Tensor]]:
    """out, lse and deterministic gradients, once for every number of threads, which a GPU does not ask for."""
    before, seen = torch.get_num_threads(), []
    case.deterministic = True
    try:
        for count in threads:
            torch.set_num_threads(count)
            out, lse = case.ours()
            seen.append([out, lse, *torch.autograd.grad([out.sum() + lse.sum()], case.leaves)])
    finally:
        torch.set_num_threads(before)
    return seen


def all_equal(seen: list[list[torch.Tensor]]) -> bool:
    return all(torch.equal(x, y) for other in seen[1:] for x, y in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_repeats_and_thread_counts_agree_bitwise(dtype: torch.dtype) -> None:
    assert all_equal(seen_with((1, 2, 5, 2, 1), make([150, 3, 64], [150, 3, 64], heads=4, heads_kv=2, dtype=dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_long_sequence_is_shared_by_threads_bitwise(dtype: torch.dtype) -> None:
    # Long enough that a backward of several workers has to split its rows, or add what several of them found.
    assert all_equal(seen_with((1, 3), make([4200, 5], [4200, 5], heads=1, heads_kv=1, d=16, dv=16, dtype=dtype)))


def test_fifty_repeats_under_load_agree_bitwise() -> None:
    case, done = make([300, 64, 7] + [5] * 30, [300, 64, 7] + [5] * 30, heads=4, heads_kv=2, dtype=torch.float32), Event()

    device = torch.get_default_device()

    def load() -> None:
        x = torch.randn(200, 200, device=device)
        with torch.cuda.stream(torch.cuda.Stream() if device.type == "cuda" else None):
            while not done.is_set():
                x = torch.tanh(x @ x)

    neighbours = [Thread(target=load) for _ in range(2)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        assert all_equal(seen_with([4] * 50, case))
    finally:
        done.set()
        for neighbour in neighbours:
            neighbour.join()


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
def test_partial_results_per_hop_equal_one_call(ring: int, length: int, level: str) -> None:
    # bfloat16, keys in `ring` pieces seeded one from the other in float32: one rounding, as in a single call. Dot products of
    # bfloat16 pairs also round each weight, relative to its hop's largest: less than that of the result.
    case = make([length], [length], dtype=torch.bfloat16)
    cuts = [length * i // ring for i in range(ring + 1)]
    forward = torch.ops.hetsp.varlen_attention_forward
    seed = (None, None)
    q, k, v = (x.detach() for x in case.leaves)
    for begin, end in itertools.pairwise(cuts):
        segment = torch.tensor([[0, length, begin, end, 0, begin, -1, 0]])
        seed = forward(q, k, v, segment, 0.25, 0.0, None, *seed, True)
    whole = forward(q, k, v, torch.tensor([[0, length, 0, length, 0, 0, -1, 0]]), 0.25, 0.0, None, None, None, True)
    rounding = norm_error(whole[0].bfloat16(), whole[0]) if level in ("avx512_bf16", "amx", "cuda", "cuda_mma") else 0.0
    assert norm_error(seed[0], whole[0]) < 2e-7 + rounding
    assert norm_error(seed[1], whole[1]) < 2e-7


@pytest.mark.parametrize("ring", [2, 3, 5])
@pytest.mark.parametrize("length", [31, 61, 149])
def test_gradients_per_hop_equal_one_call(ring: int, length: int) -> None:
    # Every hop's block is exact alone given the final lse; partial gradients are float32, so a ring rounds once to bfloat16.
    torch.manual_seed(length)
    q, k, v, dout = (torch.randn(length, 2, 16).bfloat16() for _ in range(4))
    forward, backward = torch.ops.hetsp.varlen_attention_forward, torch.ops.hetsp.varlen_attention_backward
    whole = torch.tensor([[0, length, 0, length, 0, 0, -1, 0]])
    out, lse = forward(q, k, v, whole, 0.25, 0.0, None, None, None, False)

    def gradients_of(segments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return backward(dout, None, q, k, v, out, lse, segments, 0.25, 0.0, None, True)[:3]

    sums = [torch.zeros_like(x) for x in gradients_of(whole)]
    for begin, end in itertools.pairwise(length * i // ring for i in range(ring + 1)):
        hop = gradients_of(torch.tensor([[0, length, begin, end, 0, begin, -1, 0]]))
        for total, x in zip(sums, hop, strict=True):
            assert x.dtype == torch.float32
            total += x
    for total, expected in zip(sums, gradients_of(whole), strict=True):
        assert norm_error(total, expected) < 1e-6  # the same terms, added in another order
