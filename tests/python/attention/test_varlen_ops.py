"""The attention ops as torch ops: derivatives, fakes, compilation, autocast, and what they refuse."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument
from hetsp_ext.integrations.flash_attn import flash_attn_varlen_func
from tests.support.devices import CONTENTS, only_on_cpu

FORWARD = torch.ops.hetsp.varlen_attention_forward.default
BACKWARD = torch.ops.hetsp.varlen_attention_backward.default


def cu(dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor([0, 3, 3, 8], dtype=dtype)


def qkv(dtype: torch.dtype = torch.float64, grad: bool = True, rows: int = 8) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((rows, 4, 6), (rows, 2, 6), (rows, 2, 5))
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(grad) for shape in shapes]


def attend(q: Tensor, k: Tensor, v: Tensor, **options) -> tuple[Tensor, Tensor]:
    return hetsp.varlen_attention(q, k, v, cu(), cu(), 5, 5, **options)


def segments() -> Tensor:
    return torch.ops.hetsp.cu_seqlens_to_segments(cu(), cu(), -1, 0, 8, 8, 5, 5)


@pytest.mark.parametrize(
    "options", [{}, {"causal": False, "window_size": (2, 1)}, {"softcap": 1.5}, {"softmax_scale": -0.7}], ids=str
)
@pytest.mark.parametrize("with_sink", [False, True], ids=["plain", "sink"])
def test_gradcheck_of_out_and_lse(options: dict, with_sink: bool) -> None:
    inputs = qkv() + ([torch.randn(4, dtype=torch.float64, requires_grad=True)] if with_sink else [])

    def run(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return attend(q, k, v, sink=sink, **options)

    assert torch.autograd.gradcheck(run, inputs)


def test_gradcheck_of_merge_and_seed() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)]
    parts += [torch.randn_like(x) for x in parts]
    assert torch.autograd.gradcheck(hetsp.merge_attention, [x.requires_grad_() for x in parts])

    seed = [torch.randn(8, 4, 5, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)]

    def seeded(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        return FORWARD(q, k, v, segments(), 0.4, 0.0, None, out, lse, False)

    assert torch.autograd.gradcheck(seeded, [*qkv(), *(x.requires_grad_() for x in seed)])


def test_second_derivative_is_refused_in_words() -> None:
    q, k, v = qkv()
    (dq,) = torch.autograd.grad(attend(q, k, v)[0].sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        dq.sum().backward()


@pytest.mark.parametrize("with_sink", [False, True], ids=["plain", "sink"])
def test_opcheck(with_sink: bool) -> None:
    q, k, v = qkv(torch.float32)
    sink = torch.randn(4, requires_grad=True) if with_sink else None
    lists = hetsp.attention_lists(segments(), 8, 8)
    for rest in ((), (True,), (False, lists)):
        torch.library.opcheck(FORWARD, (q, k, v, segments(), 0.4, 0.0, sink, None, None, False, *rest))
    with torch.no_grad():
        out, lse = attend(q, k, v, sink=sink)
    plain = [x.detach() for x in (torch.randn_like(out), q, k, v, out, lse)]
    sink = None if sink is None else sink.detach()
    for rest in ((), (None, True), (None, False, lists)):
        torch.library.opcheck(BACKWARD, (plain[0], None, *plain[1:], segments(), 0.4, 0.0, sink, False, *rest))


def test_lists_are_shared_by_calls_on_the_same_segments() -> None:
    q, k, v = qkv(torch.float32)
    shared = hetsp.varlen_segments(cu(), cu(), 8, 8, 5, 5, window_size=(3, -1))
    lists = hetsp.attention_lists(shared, 8, 8)
    expected = attend(q, k, v, window_size=(3, -1))
    grads = torch.autograd.grad(expected[0].sum() + expected[1][:, 0].sum(), (q, k, v))
    for _ in range(2):  # as two layers do
        found = hetsp.segment_attention(q, k, v, shared, lists=lists)
        again = torch.autograd.grad(found[0].sum() + found[1][:, 0].sum(), (q, k, v))
        assert all(map(torch.equal, (*found, *again), (*expected, *grads)))


def test_lists_of_another_problem_are_refused() -> None:
    q, k, v = qkv(torch.float32)
    for lists in (hetsp.attention_lists(segments(), 8, 9), hetsp.attention_lists(segments()[:2], 8, 8)):
        with pytest.raises(InvalidArgument, match=r"lists has shape \[\d+\], must be \[\d+\]"):
            hetsp.segment_attention(q, k, v, segments(), lists=lists)
    lists = hetsp.attention_lists(segments(), 8, 8)
    with pytest.raises(InvalidArgument, match="lists has dtype int64, must be uint8"):
        hetsp.segment_attention(q, k, v, segments(), lists=lists.long())
    with pytest.raises(InvalidArgument, match="lists is a view of another tensor"):
        hetsp.segment_attention(q, k, v, segments(), lists=torch.cat([lists[:1], lists])[1:])
    with pytest.raises(InvalidArgument, match="total_q, total_k are -1, 8, must be >= 0"):
        hetsp.attention_lists(segments(), -1, 8)


class Backwards(TorchDispatchMode):
    """Notes what every backward is told by `deterministic`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bool | None] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is BACKWARD:
            self.asked.append(dict(zip((a.name for a in BACKWARD._schema.arguments), args, strict=False)).get("deterministic"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("switch", [False, True], ids=["", "torch's switch"])
@pytest.mark.parametrize("entry", ["varlen", "segments", "flash_attn"])
def test_deterministic_reaches_the_backward(entry: str, asked: bool, switch: bool) -> None:
    q, k, v = qkv(torch.float32)
    torch.use_deterministic_algorithms(switch)
    try:
        if entry == "varlen":
            out, _ = attend(q, k, v, deterministic=asked)
        elif entry == "segments":
            out, _ = hetsp.segment_attention(q, k, v, segments(), deterministic=asked)
        else:
            out = flash_attn_varlen_func(q, k, v, cu(), cu(), 5, 5, causal=True, deterministic=asked)
    finally:
        torch.use_deterministic_algorithms(False)
    with Backwards() as seen:
        out.sum().backward()
    assert seen.asked == ([True] if asked or switch else [None])  # a false that is the default is left out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_delta_given_is_delta_computed(dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype, grad=False)
    out, lse = attend(q, k, v)
    grad_out, grad_lse = torch.randn(out.shape).to(dtype), torch.randn(lse.shape).to(lse.dtype)
    delta = hetsp.attention_delta(grad_out, out, lse, grad_lse)
    exact = (grad_out.double() * out.double()).sum(-1).T - grad_lse.double()
    assert delta.dtype == lse.dtype
    torch.testing.assert_close(delta.double(), exact, rtol=1e-6, atol=1e-6)

    rest = (segments(), 0.4, 0.0, None, True)
    computed = BACKWARD(grad_out, grad_lse, q, k, v, out, lse, *rest)
    given = BACKWARD(grad_out, None, q, k, v, torch.full_like(out, torch.nan), lse, *rest, delta)
    other = BACKWARD(grad_out, None, q, k, v, out, lse, *rest, delta + 1)
    assert all(torch.equal(a, b) for a, b in zip(given, computed, strict=True))
    assert not torch.equal(other[0], computed[0])


def test_delta_names_what_does_not_fit() -> None:
    q, k, v = qkv(torch.float32, grad=False)
    out, lse = attend(q, k, v)
    with pytest.raises(InvalidArgument, match=r"lse has shape \[4, 7\], must be \[4, 8\]"):
        hetsp.attention_delta(out, out, lse[:, :7])
    with pytest.raises(InvalidArgument, match="out has dtype int64, must be float64"):
        hetsp.attention_delta(out, out.long(), lse)
    with pytest.raises(InvalidArgument, match="grad_out has dtype float64, must be float32"):
        hetsp.attention_delta(out.double(), out, lse)
    rest = (q, k, v, out, lse, segments(), 0.4, 0.0, None, False)
    with pytest.raises((ValueError, RuntimeError), match="grad_lse is given beside delta"):
        BACKWARD(out, lse, *rest, lse)
    with pytest.raises((ValueError, RuntimeError), match=r"delta has shape \[8, 4\], must be \[4, 8\]"):
        BACKWARD(out, None, *rest, lse.T)


def test_opcheck_of_the_small_ops() -> None:
    torch.library.opcheck(torch.ops.hetsp.cu_seqlens_to_segments.default, (cu(), cu(), -1, 0, 8, 8, 5, 5))
    used = torch.tensor([2, 0, 5], dtype=torch.int32)
    torch.library.opcheck(torch.ops.hetsp.cu_seqlens_to_segments.default, (cu(), cu(), -1, 0, 8, 8, 5, 5, used, used))
    no_contents = (
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
    )  # the bytes are for the kernels, partly unset
    torch.library.opcheck(torch.ops.hetsp.attention_lists.default, (segments(), 8, 8), test_utils=no_contents)
    part = (torch.randn(8, 4, 5, requires_grad=True), torch.randn(4, 8, requires_grad=True))
    torch.library.opcheck(torch.ops.hetsp.attention_delta.default, (part[0].detach(), None, part[0].detach(), part[1].detach()))
    torch.library.opcheck(torch.ops.hetsp.merge_attention.default, (*part, *part))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_as_one_graph_with_dynamic_shapes(backend: str) -> None:
    torch._dynamo.reset()
    factor = 1.5 if backend == "aot_eager" else 1  # inductor would call a C++ compiler for the product: a minute, not ours

    def run(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        return hetsp.varlen_attention(q if factor == 1 else q * factor, k, v, ends, ends, longest, longest)

    compiled = torch.compile(run, backend=backend, fullgraph=True, dynamic=True)
    for rows in (8, 11, 19):
        ends = torch.tensor([0, 3, rows - 1, rows], dtype=torch.int32)
        inputs = qkv(torch.float32, rows=rows)
        eager, graph = run(*inputs, ends, rows), compiled(*inputs, ends, rows)
        ones = [torch.ones_like(x) for x in eager]
        assert all(torch.equal(x, y) for x, y in zip(eager, graph, strict=True))
        for x, y in zip(torch.autograd.grad(eager, inputs, ones), torch.autograd.grad(graph, inputs, ones), strict=True):
            assert torch.equal(x, y)


def test_autocast_casts_q_k_v_and_leaves_the_rest() -> None:
    q, k, v = qkv(torch.float32)
    sink = torch.randn(4, requires_grad=True)
    with torch.autocast(q.device.type, torch.bfloat16):
        out, lse = attend(q, k, v, sink=sink)
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    expected = attend(*(x.bfloat16() for x in (q, k, v)), sink=sink)
    assert torch.equal(out, expected[0])
    out.sum().backward()
    assert q.grad.dtype == sink.grad.dtype == torch.float32


def test_without_lse_and_with_int64_and_bfloat16_sink() -> None:
    q, k, v = qkv(torch.float32)
    sink = torch.zeros(4, dtype=torch.bfloat16)
    out = hetsp.varlen_attention(q, k, v, cu(torch.int64), cu(torch.int64), 5, 5, sink=sink, return_lse=False)
    assert torch.equal(out, attend(q, k, v, sink=sink.float())[0])


BAD = {
    "starts at 1": (lambda a: a.update(cu_q=torch.tensor([1, 3, 3, 8])), r"cu_seqlens_q\[0\] is 1, must be 0"),
    "decreases": (lambda a: a.update(cu_q=torch.tensor([0, 5, 3, 8])), r"cu_seqlens_q\[2\] is 3, below cu_seqlens_q\[1\] = 5"),
    "beyond": (lambda a: a.update(cu_k=torch.tensor([0, 3, 4, 9])), r"cu_seqlens_k\[3\] is 9, beyond the 8 rows of k"),
    "sizes differ": (lambda a: a.update(cu_k=torch.tensor([0, 8])), r"cu_seqlens_k has shape \[2\], must be \[4\]"),
    "float cu": (lambda a: a.update(cu_q=torch.tensor([0.0, 8.0])), r"cu_seqlens_q has dtype float32, must be int32 or int64"),
    "mixed cu": (lambda a: a.update(cu_k=cu()), r"cu_seqlens_k has dtype int32, must be int64"),
    "empty cu": (lambda a: a.update(cu_q=cu(torch.int64)[:0]), r"cu_seqlens_q has shape \[0\]"),
    "max_seqlen": (lambda a: a.update(max_q=4), r"max_seqlen_q is 4, but sequence 2 has 5 tokens"),
    "window": (lambda a: a.update(window_size=(-2, 0)), r"window_size\[0\] is -2"),
    "two dims": (lambda a: a.update(q=a["q"][:, 0]), r"q has shape \[8, 6\], must be \(tokens, heads, head_dim\)"),
    "heads": (lambda a: a.update(q=a["q"][:, :3]), r"q has 3 heads, which is no multiple of the 2 heads"),
    "dtypes": (lambda a: a.update(k=a["k"].float()), r"k has dtype float32, must be float64"),
    "int q": (lambda a: a.update(q=a["q"].long()), r"q has dtype int64, must be float64, float32, bfloat16 or float16"),
    "head_dim": (lambda a: a.update(k=a["k"][..., :5]), r"k has shape \[8, 2, 5\], must be \[any, any, 6\]"),
    "keys of v": (lambda a: a.update(v=a["v"][:7]), r"v has shape \[7, 2, 5\], must be \[8, 2, any\]"),
    "device": (lambda a: a.update(v=a["v"].to("meta")), r"v is on meta, must be on (cpu|cuda:0) like q"),
    "sink": (lambda a: a.update(sink=torch.zeros(3)), r"sink has shape \[3\], must be \[4\]"),
    "softcap": (lambda a: a.update(softcap=-1.0), r"softcap is -1, must be 0 \(off\) or positive"),
    "scale": (lambda a: a.update(softmax_scale=float("nan")), r"softmax_scale is nan, must be finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_value(name: str) -> None:
    if name in ("starts at 1", "decreases", "beyond", "max_seqlen"):
        only_on_cpu(CONTENTS)
    change, message = BAD[name]
    q, k, v = qkv(grad=False)
    a = {"q": q, "k": k, "v": v, "cu_q": cu(torch.int64), "cu_k": cu(torch.int64), "max_q": 5, "max_k": 5}
    change(a)
    given = [a.pop(key) for key in ("q", "k", "v", "cu_q", "cu_k", "max_q", "max_k")]
    with pytest.raises(InvalidArgument, match=message) as caught:
        hetsp.varlen_attention(*given, **a)
    assert not str(caught.value).startswith("hetsp: ")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 9, 0, 8, 0, 0, -1, 0], r"segment 1 has query rows \[0, 9\), must be a run inside \[0, 8\)"),
        ([0, 8, 5, 4, 0, 0, -1, 0], r"segment 1 has key rows \[5, 4\)"),
        ([0, 8, 0, 8, 0, 0, -5, 0], r"segment 1 has a window of -5"),
    ],
)
def test_bad_segments_name_the_value(row: list[int], message: str) -> None:
    only_on_cpu(CONTENTS)
    with pytest.raises(InvalidArgument, match=message):
        hetsp.segment_attention(*qkv(grad=False), torch.tensor([[0, 8, 0, 8, 0, 0, -1, 0], row]))


def test_half_a_seed_is_refused() -> None:
    q, k, v = qkv(grad=False)
    with pytest.raises(ValueError, match="must be given together"):
        FORWARD(q, k, v, segments(), 1.0, 0.0, None, torch.zeros(8, 4, 5, dtype=torch.float64), None, False)
