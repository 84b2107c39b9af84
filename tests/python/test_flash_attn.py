"""The interfaces of flash_attn 2 and 3: arguments in their order, results against the definition, refusals by name."""

import inspect
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.attention.varlen
from torch import Tensor

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument
from hetsp_ext.integrations import flash_attn as v2
from hetsp_ext.integrations import flash_attn_interface as v3
from tests.architecture.tree import read
from tests.python.attention.reference import Case, norm_error
from tests.support.devices import CONTENTS, DEVICES, default_device, only_on_cpu
from tools.readme_block import fenced_blocks


@pytest.fixture(autouse=True, params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where tensors are made."""
    with default_device(request.param):
        yield request.param


def cu() -> Tensor:
    return torch.tensor([0, 3, 3, 8], dtype=torch.int32)


def qkv(heads_kv: int = 2, rows: int = 8) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, heads, 6, dtype=torch.float64, requires_grad=True) for heads in (4, heads_kv, heads_kv)]


def expected(q: Tensor, k: Tensor, v: Tensor, **options) -> tuple[Tensor, Tensor]:
    """By the dense definition, in float64."""
    return Case(q, k, v, [3, 0, 5], [3, 0, 5], **options).reference()


def assert_close(actual: Tensor | tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> None:
    for x, y in zip(actual if isinstance(actual, tuple) else (actual,), truth, strict=False):
        if x is not None:
            assert norm_error(x, y) < 1e-13


OPTIONS = [
    ({}, {"causal": False}),
    ({"causal": True}, {"causal": True}),
    ({"causal": True, "window_size": (1, 5)}, {"causal": True, "window": (1, -1)}),
    ({"window_size": (1, 0), "softmax_scale": 0.3}, {"causal": False, "window": (1, 0), "scale": 0.3}),
    ({"softcap": 1.5, "deterministic": True}, {"causal": False, "softcap": 1.5}),
    ({"softcap": -1.0}, {"causal": False}),
]


@pytest.mark.parametrize("function", [v2.flash_attn_varlen_func, v3.flash_attn_varlen_func], ids=["2", "3"])
@pytest.mark.parametrize("heads_kv", [4, 2, 1])
@pytest.mark.parametrize(("given", "meaning"), OPTIONS, ids=str)
def test_packed(function: Callable, heads_kv: int, given: dict, meaning: dict) -> None:
    inputs = qkv(heads_kv)
    truth = expected(*inputs, **meaning)
    out = function(*inputs, cu(), cu(), 5, 5, **given)
    assert_close(out, truth[:1])
    with_lse = function(*inputs, cu(), cu(), 5, 5, return_attn_probs=True, **given)
    assert_close(with_lse, truth)
    assert len(with_lse) == (3 if function is v2.flash_attn_varlen_func else 2)
    torch.manual_seed(1)
    grads = torch.randn_like(truth[0]), torch.randn_like(truth[1])
    for x, y in zip(torch.autograd.grad(with_lse[:2], inputs, grads), torch.autograd.grad(truth, inputs, grads), strict=True):
        assert norm_error(x, y) < 1e-12


@pytest.mark.parametrize("function", [v2.flash_attn_func, v3.flash_attn_func], ids=["2", "3"])
@pytest.mark.parametrize("layout", ["rows, heads", "heads, rows"])
def test_dense(function: Callable, layout: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, rows, heads, 6, dtype=torch.float64) for rows, heads in ((5, 4), (7, 2), (7, 2)))
    if layout == "heads, rows":
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    out, lse, *_ = function(q, k, v, causal=True, window_size=(3, -1), return_attn_probs=True)
    truth = Case(*(x.flatten(0, 1) for x in (q, k, v)), [5, 5], [7, 7], window=(3, -1)).reference()
    assert out.shape == (2, 5, 4, 6)
    assert lse.shape == (2, 4, 5)
    assert_close((out.flatten(0, 1), lse.transpose(0, 1).flatten(1)), truth)


def test_packed_projections() -> None:
    q, k, v = qkv(heads_kv=4)
    truth = expected(q, k, v)
    assert_close(v2.flash_attn_varlen_qkvpacked_func(torch.stack([q, k, v], 1), cu(), 5, causal=True), truth)
    assert_close(v2.flash_attn_varlen_kvpacked_func(q, torch.stack([k, v], 1), cu(), cu(), 5, 5, causal=True), truth)
    dense = [x.reshape(2, 4, 4, 6) for x in (q, k, v)]
    truth = v2.flash_attn_func(*dense, causal=True)
    assert torch.equal(v2.flash_attn_qkvpacked_func(torch.stack(dense, 2), causal=True), truth)
    assert torch.equal(v2.flash_attn_kvpacked_func(dense[0], torch.stack(dense[1:], 2), causal=True), truth)
    assert torch.equal(v3.flash_attn_qkvpacked_func(torch.stack(dense, 2), causal=True), truth)
    few = [dense[0], dense[1][:, :, :2], dense[2][:, :, :2]]
    assert torch.equal(v3.flash_attn_qkvpacked_func(torch.cat(few, 2), num_heads_q=4), v3.flash_attn_func(*few))


def test_only_used_rows_take_part() -> None:
    torch.manual_seed(0)
    used_q, used_k = [2, 0, 4], [1, 0, 5]
    q, k, v = qkv()
    with torch.no_grad():
        q[2], q[7], k[1:3], v[1:3] = (torch.nan,) * 4
    used = {"seqused_q": torch.tensor(used_q, dtype=torch.int32), "seqused_k": torch.tensor(used_k, dtype=torch.int32)}
    out, lse = v3.flash_attn_varlen_func(q, k, v, cu(), cu(), 5, 5, causal=True, return_attn_probs=True, **used)
    rows, keys = torch.tensor([0, 1, 3, 4, 5, 6]), torch.tensor([0, 3, 4, 5, 6, 7])
    truth = Case(q[rows], k[keys], v[keys], used_q, used_k).reference()
    assert_close((out[rows], lse[:, rows]), truth)
    assert (out[[2, 7]] == 0).all()
    assert (lse[:, [2, 7]] == -torch.inf).all()
    grad = torch.randn_like(out)
    for x, y in zip(
        torch.autograd.grad(out, (q, k, v), grad), torch.autograd.grad(truth[0], (q, k, v), grad[rows]), strict=True
    ):
        assert norm_error(x, y) < 1e-12
    direct = hetsp.varlen_attention(q, k, v, cu(), cu(), 5, 5, **used)
    assert torch.equal(direct[0], out)


def test_seqused_is_checked() -> None:
    only_on_cpu(CONTENTS)
    q, k, v = qkv()
    used = torch.tensor([1, 0, 5], dtype=torch.int32)
    for name, given, message in (
        ("seqused_q", used + 3, r"seqused_q\[0\] is 4, must be in \[0, 3\]"),
        ("seqused_k", used - 1, r"seqused_k\[1\] is -1, must be in \[0, 0\]"),
        ("seqused_k", used.long(), "seqused_k has dtype int64, must be int32"),
        ("seqused_q", used[:2], r"seqused_q has shape \[2\], must be \[3\]"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            v3.flash_attn_varlen_func(q, k, v, cu(), cu(), 5, 5, **{name: given})


def test_arguments_stand_in_the_order_of_the_originals() -> None:
    def names(function: Callable, count: int) -> list[str]:
        return list(inspect.signature(function).parameters)[count:]

    common = ["dropout_p", "softmax_scale", "causal", "window_size", "softcap", "alibi_slopes", "deterministic"]
    assert names(v2.flash_attn_varlen_func, 7) == [*common, "return_attn_probs", "block_table"]
    assert names(v2.flash_attn_func, 3) == [*common, "return_attn_probs"]
    scores = ["softmax_scale", "causal", "qv", "q_descale", "k_descale", "v_descale", "window_size", "attention_chunk"]
    rest = ["softcap", "num_splits", "pack_gqa", "deterministic", "sm_margin", "return_attn_probs"]
    assert names(v3.flash_attn_varlen_func, 7) == ["seqused_q", "seqused_k", *scores, *rest]
    assert names(v3.flash_attn_func, 3) == [*scores, *rest]


REFUSED = [
    (v2.flash_attn_varlen_func, {"dropout_p": 0.1}, r"dropout_p is 0\.1, must be 0"),
    (v2.flash_attn_varlen_func, {"alibi_slopes": torch.ones(4)}, r"alibi_slopes is a tensor of shape \[4\], must be None"),
    (v2.flash_attn_varlen_func, {"block_table": torch.zeros(3, 1)}, "block_table is a tensor"),
    (v3.flash_attn_varlen_func, {"qv": torch.ones(1)}, "qv is a tensor"),
    (v3.flash_attn_varlen_func, {"k_descale": torch.ones(1)}, "k_descale is a tensor"),
    (v3.flash_attn_varlen_func, {"attention_chunk": 3}, "attention_chunk is 3, must be 0"),
]


@pytest.mark.parametrize(
    ("function", "options", "message"), REFUSED, ids=lambda x: next(iter(x)) if isinstance(x, dict) else ""
)
def test_what_cannot_be_honoured_is_refused_by_name(function: Callable, options: dict, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        function(*qkv(), cu(), cu(), 5, 5, **options)


def test_wrong_shapes_are_named() -> None:
    q, k, v = qkv()
    with pytest.raises(InvalidArgument, match=r"qkv has shape \[8, 4, 6\], must be \(total, 3, heads, head_dim\)"):
        v2.flash_attn_varlen_qkvpacked_func(q, cu(), 5)
    with pytest.raises(InvalidArgument, match=r"k has shape \[8, 2, 6\], must be \(batch, rows, heads, head_dim\)"):
        v2.flash_attn_func(q[None], k, v)
    with pytest.raises(InvalidArgument, match=r"must be \(batch, rows, 3 \+ 2 heads_kv, head_dim\)"):
        v3.flash_attn_qkvpacked_func(q[None], num_heads_q=3)


def test_compiles_as_one_graph() -> None:
    torch._dynamo.reset()

    ends = cu()

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        used = ends[1:] - ends[:-1]
        return v3.flash_attn_varlen_func(q, k, v, ends, ends, 5, 5, causal=True, seqused_k=used, return_attn_probs=True)

    inputs = qkv()
    eager, graph = run(*inputs), torch.compile(run, backend="aot_eager", fullgraph=True)(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(eager, graph, strict=True))
    ones = [torch.ones_like(x) for x in eager]
    for x, y in zip(torch.autograd.grad(eager, inputs, ones), torch.autograd.grad(graph, inputs, ones), strict=True):
        assert torch.equal(x, y)


def test_the_python_of_the_page_runs() -> None:
    only_on_cpu("the page is one program")
    if "enable_gqa" not in inspect.signature(torch.nn.attention.varlen.varlen_attn).parameters:
        pytest.skip(f"the page calls varlen_attn with enable_gqa, which torch {torch.__version__} does not know")
    session: dict = {}
    for tag, block in fenced_blocks(read("docs/integrations.md")):
        if tag == "python":
            exec(compile(block, "docs/integrations.md", "exec"), session)
    assert session["lse"].shape == (8, 200)


def test_installed_under_the_original_names_until_taken_back() -> None:
    names = ("flash_attn", "flash_attn.flash_attn_interface", "flash_attn_interface")
    assert not any(name in sys.modules for name in names)
    v2.install()
    try:
        v2.install()  # a second time changes nothing
        import flash_attn
        import flash_attn_interface
        from flash_attn.flash_attn_interface import flash_attn_varlen_func

        assert flash_attn is v2
        assert flash_attn_interface is v3
        assert flash_attn_varlen_func is v2.flash_attn_varlen_func
    finally:
        v2.uninstall()
    assert not any(name in sys.modules for name in names)


def test_the_real_package_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", sys)
    with pytest.raises(InvalidArgument, match="flash_attn_interface is imported already"):
        v2.install()
    assert "flash_attn" not in sys.modules
