"""Segments of every kind against float64 maths, and what only a GPU can get wrong: streams, waits, wild offsets, its limits.

Without a GPU the second half is skipped, with the reason; tests/cpp/attention/cuda_kernels_test.cc runs the same kernels on
the CPU everywhere.
"""

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import hetsp_ext as hetsp
from tests.support.devices import needs_cuda

FEATURES = ("plain", "window", "softcap", "sink", "shared")
# Norm of the error over norm of the value: half a unit of the output's type, and some units of the accumulate type.
BOUND = {torch.float64: 1e-13, torch.float32: 4e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11 + 4e-6}
LENGTHS = (0, 1, 2, 7, 16, 17, 31, 33, 63, 64, 65, 100, 129)
LONG_LENGTHS = (0, 1, 60, 127, 128, 129, 200, 257, 500)


gpu_only = pytest.mark.parametrize("level", [pytest.param("cuda", marks=needs_cuda)], indirect=True, scope="session")


@pytest.fixture
def no_family() -> Iterator[None]:
    """Afterwards any family of kernels may be taken again."""
    before = hetsp.cuda_kernels()
    yield
    hetsp.set_cuda_kernels(before)


def reference(q: Tensor, k: Tensor, v: Tensor, segments: Tensor, softcap: float, sink: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition, dense over all rows and keys: a key counts once for every segment that shows it."""
    rows, keys = torch.arange(q.shape[0])[:, None], torch.arange(k.shape[0])[None, :]
    times = torch.zeros(q.shape[0], k.shape[0], dtype=torch.float64)
    for q_begin, q_end, k_begin, k_end, q_pos0, k_pos0, left, right in segments.tolist():
        distance = (k_pos0 + keys - k_begin) - (q_pos0 + rows - q_begin)
        visible = (rows >= q_begin) & (rows < q_end) & (keys >= k_begin) & (keys < k_end)
        times += visible & ((distance >= -left) | (left < 0)) & ((distance <= right) | (right < 0))
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    scores = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(times == 0, -torch.inf) + torch.where(times == 0, 0.0, times.clamp_min(1).log())
    extra = torch.full((q.shape[1],), -torch.inf, dtype=torch.float64) if sink is None else sink
    scores = torch.cat([scores, extra[:, None, None].expand(-1, q.shape[0], 1)], -1)
    empty = (scores == -torch.inf).all(-1)
    lse = torch.logsumexp(scores.masked_fill(empty[..., None], 0.0), -1).masked_fill(empty, -torch.inf)
    weights = torch.softmax(scores.masked_fill(empty[..., None], 0.0), -1)[..., :-1].masked_fill(times == 0, 0.0)
    return torch.einsum("hij,jhd->ihd", weights, v), lse


def norm_error(x: Tensor, expected: Tensor) -> float:
    x = x.detach().double()
    finite = expected.isfinite()
    assert torch.equal(x[~finite], expected[~finite]), "infinities differ"
    difference, norm = (x - expected)[finite].norm().item(), expected[finite].norm().item()
    return difference if norm == 0 else difference / norm


class Batch:
    """Documents of random lengths with an unused tail of NaN, as leaves in float64, already rounded to `dtype`."""

    def __init__(self, seed: int, dtype: torch.dtype, feature: str, lengths: tuple[int, ...] = LENGTHS) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.dtype, self.acc = dtype, torch.float64 if dtype == torch.float64 else torch.float32
        self.lengths = [rng.choice(lengths) for _ in range(rng.choice([1, 3, 4]))]
        total = sum(self.lengths)
        heads_kv = rng.choice([1, 2])
        heads, (dim, dim_v) = heads_kv * rng.choice([1, 3]), rng.choice([(16, 16), (40, 24), (64, 64), (72, 128), (192, 128)])
        tail = rng.choice([0, 5])

        def rows(heads: int, dim: int) -> Tensor:
            return torch.cat([torch.randn(total, heads, dim), torch.zeros(tail, heads, dim)]).to(dtype).double()

        self.leaves = [rows(heads, dim), rows(heads_kv, dim), rows(heads_kv, dim_v)]
        self.sink = torch.randn(heads).to(self.acc).double() if feature == "sink" else None
        self.softcap = 2.0 if feature == "softcap" else 0.0
        self.window = rng.choice([(0, 0), (7, 3), (64, -1)]) if feature == "window" else (-1, -1)
        cu = torch.tensor([0, *self.lengths]).cumsum(0)
        ends = list(zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True))
        segments = [[a, b, a, b, 0, 0, self.window[0], 0 if feature != "window" else self.window[1]] for a, b in ends]
        if feature == "shared":  # the second half of the rows also sees the first keys
            segments.insert(rng.randrange(len(segments) + 1), [total // 2, total, 0, total // 3, total, 0, -1, 0])
        self.segments = torch.tensor(segments, dtype=torch.int64)
        self.total, self.tail, self.cu = total, tail, cu.to(rng.choice([torch.int32, torch.int64]))

    def inputs(self) -> tuple[list[Tensor], Tensor | None]:
        given = [x.detach().to(self.dtype, copy=True) for x in self.leaves]
        for x in given:
            x[self.total :] = torch.nan  # must not be read
        sink = None if self.sink is None else self.sink.to(self.acc).requires_grad_()
        return [x.requires_grad_() for x in given], sink


def check_against_float64_maths(batch: Batch) -> None:
    (q, k, v), sink = batch.inputs()
    out, lse = hetsp.segment_attention(q, k, v, batch.segments, softcap=batch.softcap, sink=sink)
    exact = [x.requires_grad_() for x in batch.leaves]
    exact_sink = None if batch.sink is None else batch.sink.requires_grad_()
    true_out, true_lse = reference(*exact, batch.segments, batch.softcap, exact_sink)
    bound = BOUND[batch.dtype]
    assert norm_error(out, true_out) <= bound
    assert norm_error(lse, true_lse) <= BOUND[batch.acc]

    grad_out, grad_lse = torch.randn_like(true_out).to(batch.dtype), torch.randn_like(true_lse)
    grad_lse = torch.where(true_lse.isfinite(), grad_lse, 0.0).to(batch.acc)
    leaves, exact_leaves = [q, k, v, *([] if sink is None else [sink])], [*exact, *([] if exact_sink is None else [exact_sink])]
    ours = torch.autograd.grad([out, lse], leaves, [grad_out, grad_lse])
    finite = torch.where(true_lse.isfinite(), true_lse, 0.0)
    true = torch.autograd.grad([true_out, finite], exact_leaves, [grad_out.double(), grad_lse.double()])
    for name, x, expected in zip(("dq", "dk", "dv", "dsink"), ours, true, strict=False):
        # Twice the bound: out reaches the backward rounded. dsink adds up over all rows and may cancel.
        assert norm_error(x, expected) <= (8 if name == "dsink" else 2) * bound, name


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("seed", range(4))
def test_against_float64_maths(seed: int, feature: str) -> None:
    dtype = list(BOUND)[(seed + FEATURES.index(feature)) % len(BOUND)]
    check_against_float64_maths(Batch(seed, dtype, feature))


@gpu_only
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["scalar", "mma", "hopper"])
@pytest.mark.parametrize("seed", range(20, 24))
def test_families_against_float64_maths(seed: int, family: str, dtype: torch.dtype, feature: str, no_family: None) -> None:
    hetsp.set_cuda_kernels(family)
    check_against_float64_maths(Batch(seed, dtype, feature, LONG_LENGTHS))


@gpu_only
@pytest.mark.parametrize("dims", [(64, 64), (72, 40), (128, 128)], ids=str)
def test_only_hopper_serves_what_hopper_can(dims: tuple[int, int], no_family: None) -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip(f"the device has compute capability {torch.cuda.get_device_capability()}, not (9, 0)")
    hetsp.set_cuda_kernels("hopper", only=True)
    q, k = (torch.randn(300, heads, dims[0], dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2))
    v = torch.randn(300, 2, dims[1], dtype=torch.bfloat16, requires_grad=True)
    cu = torch.tensor([0, 1, 200, 300])
    out, _ = hetsp.varlen_attention(q, k, v, cu, cu, 199, 199)
    out.sum().backward()  # dout has strides of 0, and is copied
    for bad, why in (
        ((q.float(), k.float(), v.float()), "q: its type"),
        ((q[..., 3:], k[..., 3:], v), "q: its head_dim is no"),
    ):
        with pytest.raises(hetsp.errors.InvalidArgument, match=why):
            hetsp.varlen_attention(*bad, cu, cu, 199, 199)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_varlen_attention_is_its_segments_bitwise(dtype: torch.dtype) -> None:
    batch = Batch(11, dtype, "plain")
    (q, k, v), _ = batch.inputs()
    cu, longest = batch.cu, max(batch.lengths)
    out, lse = hetsp.varlen_attention(q, k, v, cu, cu, longest, longest)
    again, lse_again = hetsp.segment_attention(q, k, v, batch.segments)
    assert torch.equal(out, again)
    assert torch.equal(lse, lse_again)


def test_two_runs_are_bitwise_equal() -> None:
    batch = Batch(12, torch.bfloat16, "shared")
    (q, k, v), _ = batch.inputs()
    cu, longest = batch.cu, max(batch.lengths)

    def run() -> list[Tensor]:
        shared = hetsp.segment_attention(q, k, v, batch.segments)
        out, lse = hetsp.varlen_attention(q, k, v, cu, cu, longest, longest, deterministic=True)
        return [*shared, out, lse, *torch.autograd.grad(out.float().square().sum(), (q, k, v))]

    first = run()
    for _ in range(5):
        assert all(map(torch.equal, first, run()))


def test_halves_merged_are_the_whole() -> None:
    torch.manual_seed(13)
    q, k, v = (torch.randn(70, 2, 32, dtype=torch.float64) for _ in range(3))
    parts = [torch.tensor([[0, 70, begin, end, 0, begin, -1, 0]]) for begin, end in ((0, 33), (33, 70), (0, 70))]
    (out_a, lse_a), (out_b, lse_b), (out, lse) = (hetsp.segment_attention(q, k, v, part) for part in parts)
    merged, lse_merged = hetsp.merge_attention(out_a, lse_a, out_b, lse_b)
    torch.testing.assert_close(merged, out, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(lse_merged, lse, rtol=1e-13, atol=1e-13)


@pytest.fixture
def no_sync() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@gpu_only
def test_nothing_waits_for_the_device(no_sync: None) -> None:
    q = torch.zeros(64, 2, 32, requires_grad=True)
    cu = torch.arange(0, 65, 16)
    out, _ = hetsp.varlen_attention(q, q, q, cu, cu, 16, 16)
    out.backward(torch.ones_like(out))


@gpu_only
@pytest.mark.parametrize("lengths", [[300], [1, 200, 0, 99], [20] * 1500, [40000, 7, 40000]], ids=lambda x: str(len(x)))
def test_lists_made_once_give_the_same_bits(lengths: list[int]) -> None:
    torch.manual_seed(14)
    total, longest = sum(lengths), max(lengths)
    cu = torch.tensor([0, *lengths]).cumsum(0)
    q, k, v = (torch.randn(total, heads, 64, dtype=torch.bfloat16, requires_grad=True) for heads in (2, 1, 1))
    segments = hetsp.varlen_segments(cu, cu, total, total, longest, longest, window_size=(500, -1))
    lists = hetsp.attention_lists(segments, total, total)
    grad_out = torch.randn_like(q)
    found = []
    for shared in (None, lists, lists):
        out, lse = hetsp.segment_attention(q, k, v, segments, lists=shared, deterministic=True)
        found.append([out, lse, *torch.autograd.grad(out, (q, k, v), grad_out)])
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[0], found[2]))


@gpu_only
@pytest.mark.parametrize("family", ["scalar", "mma", "hopper"])
def test_a_captured_graph_follows_new_lengths_and_numbers(family: str, no_family: None) -> None:
    hetsp.set_cuda_kernels(family)
    q, k, v = (torch.randn(300, heads, 64, dtype=torch.bfloat16, requires_grad=True) for heads in (2, 1, 1))
    grad_out, cu = torch.randn_like(q), torch.tensor([0, 100, 300])

    def run() -> list[Tensor]:
        out, lse = hetsp.varlen_attention(q, k, v, cu, cu, 300, 300)
        return [out, lse, *torch.autograd.grad(out, (q, k, v), grad_out)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()  # torch wants it to have run before
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    with torch.no_grad():
        cu.copy_(torch.tensor([0, 250, 300]))
        q.normal_()
    graph.replay()
    for x, expected in zip(found, run(), strict=True):
        torch.testing.assert_close(x, expected, rtol=2**-7, atol=2**-9)  # dq of hopper is not the same in every run


@gpu_only
def test_a_call_with_given_lists_is_captured() -> None:  # ahead of the kernel stands a memset, not another kernel
    q = torch.randn(700, 2, 64, dtype=torch.bfloat16)
    cu = torch.tensor([0, 100, 700])
    segments = hetsp.varlen_segments(cu, cu, 700, 700, 600, 600)
    lists = hetsp.attention_lists(segments, 700, 700)
    expected = hetsp.segment_attention(q, q, q, segments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = hetsp.segment_attention(q, q, q, segments, lists=lists)
    for _ in range(2):
        graph.replay()
        assert all(map(torch.equal, found, expected))


@gpu_only
def test_work_goes_to_the_current_stream() -> None:
    q = torch.randn(256, 2, 64)
    cu = torch.tensor([0, 256])
    expected, _ = hetsp.varlen_attention(q, q, q, cu, cu, 256, 256)
    torch.cuda.synchronize()
    late = torch.full_like(q, torch.nan)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # a call on another stream would overtake the copy and see NaN
        late.copy_(q)
        out, _ = hetsp.varlen_attention(late, late, late, cu, cu, 256, 256)
    stream.synchronize()
    assert torch.equal(out, expected)


@gpu_only
def test_wild_cu_seqlens_touch_no_foreign_memory() -> None:
    q = torch.randn(50, 1, 16)
    cu = torch.tensor([-9, 2**40, 3, -(2**50), 60])
    out, _ = hetsp.varlen_attention(q, q, q, cu, cu, 50, 50)
    torch.cuda.synchronize()  # an illegal address would show here
    assert out.shape == q.shape


@gpu_only
def test_more_sequences_than_a_grid_has_rows() -> None:
    count = 80_000
    q = torch.randn(2 * count, 1, 16)
    v = torch.ones_like(q)
    cu = torch.arange(0, 2 * count + 1, 2, dtype=torch.int32)
    out, lse = hetsp.varlen_attention(q, q, v, cu, cu, 2, 2)
    torch.testing.assert_close(out, v)
    assert lse.isfinite().all()


@gpu_only
def test_offsets_beyond_32_bits() -> None:
    stride = 2**31 // 40 // 8 * 8  # elements between tokens: the last row lies beyond 2^31, and one family serves both calls
    q = torch.empty(50 * stride, dtype=torch.bfloat16).as_strided((50, 1, 16), (stride, 16, 1))
    q.copy_(torch.randn(50, 1, 16))
    cu = torch.tensor([0, 50])
    out, _ = hetsp.varlen_attention(q, q, q, cu, cu, 50, 50)
    packed = q.contiguous()
    assert torch.equal(out, hetsp.varlen_attention(packed, packed, packed, cu, cu, 50, 50)[0])


@gpu_only
def test_head_dimensions_beyond_the_kernels_are_refused() -> None:
    q = torch.zeros(4, 1, 264)
    cu = torch.tensor([0, 4])
    with pytest.raises(hetsp.errors.InvalidArgument, match="head_dim 264"):
        hetsp.varlen_attention(q, q, q, cu, cu, 4, 4)


@gpu_only
def test_tensors_on_two_devices_are_refused() -> None:
    q = torch.zeros(4, 1, 16)
    with pytest.raises((ValueError, RuntimeError), match="segments is on the CPU"):
        torch.ops.hetsp.varlen_attention_forward(
            q, q, q, torch.zeros(1, 8, dtype=torch.int64, device="cpu"), 1.0, 0.0, None, None, None, False
        )
