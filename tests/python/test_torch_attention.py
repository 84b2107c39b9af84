"""torch's varlen_attn on our attention: values, gradients, compilation, every schema, and what is refused or given back."""

import inspect
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import attention as torch_registry

varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no varlen_attn")

import hetsp_ext as hetsp  # noqa: E402
from hetsp_ext.errors import InvalidArgument  # noqa: E402
from hetsp_ext.integrations import torch_attention  # noqa: E402
from tests.python.attention.reference import Case, gradients, norm_error  # noqa: E402
from tests.support.devices import CONTENTS, DEVICES, default_device, on_cuda, only_on_cpu  # noqa: E402

LENGTHS = [5, 0, 70, 33, 1]
LONGEST, TOTAL = max(LENGTHS), sum(LENGTHS)
WINDOWS = [(-1, -1), (-1, 0), (4, 0), (-1, 4), (0, 0), (1, 0), (0, 1), (0, -1), (4, 4), (8, 2), (1025, 1025)]


@pytest.fixture(autouse=True, params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where tensors are made."""
    with default_device(request.param):
        yield request.param


def cu() -> Tensor:
    return torch.tensor([0, *LENGTHS]).cumsum(0).int()


def has_kernel(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key)


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch's own CUDA kernels stand where the test looks")
@pytest.mark.parametrize("offered", [[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]], ids=str)
def test_cuda_is_registered_where_kernels_and_torch_have_it(offered: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.hetsp, "cuda_info", lambda: offered)
    names = [name for name in torch_attention.KERNELS if hasattr(torch.ops.aten, name)]
    with torch_attention.activated():
        assert all(has_kernel(name, "CPU") for name in names)
        assert all(has_kernel(name, "CUDA") == (offered[0] == offered[1] == 1) for name in names)
    assert not any(has_kernel(name, key) for name in names for key in ("CPU", "CUDA"))


@pytest.fixture
def active() -> Iterator[None]:
    with torch_attention.activated():
        yield


def qkv(
    dtype: torch.dtype = torch.float32, heads: int = 8, heads_kv: int = 2, dim: int = 32, rows: int = TOTAL
) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, h, dim, dtype=torch.float64).to(dtype).requires_grad_() for h in (heads, heads_kv, heads_kv)]


def known(**options) -> dict:
    """Without the keywords that came after this torch: there a call shares key heads, and splits no keys, by itself."""
    accepted = inspect.signature(varlen.varlen_attn).parameters
    return {name: value for name, value in options.items() if name in accepted or name not in ("enable_gqa", "num_splits")}


def attend(q: Tensor, k: Tensor, v: Tensor, **options) -> Tensor | tuple[Tensor, Tensor]:
    options = known(**{"enable_gqa": True, "window_size": (-1, 0), **options})
    return varlen.varlen_attn(q, k, v, cu(), cu(), LONGEST, LONGEST, **options)


def attend_lse(q: Tensor, k: Tensor, v: Tensor, **options) -> tuple[Tensor, Tensor]:
    return attend(q, k, v, return_aux=varlen.AuxRequest(lse=True), **options)


def assert_torch_answers_itself() -> None:
    """It has no kernel for the CPU, and none for float32 on a GPU."""
    with pytest.raises((NotImplementedError, RuntimeError), match=r"_flash_attention_forward|only support fp16 and bf16"):
        attend(*qkv())


def test_importing_registers_nothing() -> None:
    script = (
        "import hetsp_ext.integrations.torch_attention as t, torch.nn.attention as a\n"
        "assert t.NAME not in a.list_flash_attention_impls() and a.current_flash_attention_impl() is None"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_deactivation_gives_back_torchs_own_error() -> None:
    assert_torch_answers_itself()
    for _ in range(2):
        torch_attention.activate()
        torch_attention.activate()  # a second time changes nothing
        assert torch_registry.current_flash_attention_impl() == torch_attention.NAME
        assert attend(*qkv()).shape == (TOTAL, 8, 32)
        torch_attention.deactivate()
        torch_attention.deactivate()
        assert torch_registry.current_flash_attention_impl() is None
        assert_torch_answers_itself()


def test_torchs_own_registry_can_end_and_begin_it_again() -> None:
    torch_attention.activate()
    torch_registry.restore_flash_attention_impl()
    assert_torch_answers_itself()
    torch_registry.activate_flash_attention_impl(torch_attention.NAME)
    assert attend(*qkv()).shape == (TOTAL, 8, 32)
    torch_attention.deactivate()
    assert_torch_answers_itself()


def test_another_implementation_is_active_again_after_the_block() -> None:
    class Other:
        removed = 0

        def remove(self) -> None:
            self.removed += 1

    other = Other()
    torch_registry.register_flash_attention_impl("OTHER", register_fn=lambda: other)
    torch_registry.activate_flash_attention_impl("OTHER")
    try:
        with torch_attention.activated():
            assert other.removed == 1
            with torch_attention.activated():  # inside, it stays
                pass
            assert attend(*qkv()).shape == (TOTAL, 8, 32)
        assert torch_registry.current_flash_attention_impl() == "OTHER"
        assert_torch_answers_itself()
    finally:
        torch_registry.restore_flash_attention_impl()


TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize(("window", "heads_kv"), [((-1, 0), 8), *((window, 2) for window in WINDOWS)], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values_and_gradients_against_float64(dtype: torch.dtype, window: tuple[int, int], heads_kv: int) -> None:
    case = Case(*qkv(dtype, heads_kv=heads_kv), LENGTHS, LENGTHS, scale=0.2, causal=False, window=window)
    ours = attend_lse(case.q, case.k, case.v, scale=0.2, window_size=window)
    exact = case.to(torch.float64)
    torch.manual_seed(1)
    grad_out = torch.randn(TOTAL, 8, 32, dtype=torch.float64).to(dtype)
    no_grad_lse = torch.zeros(8, TOTAL)  # torch drops it
    results = {}
    for name, c, outputs in (("ours", case, ours), ("maths", case, case.reference()), ("truth", exact, exact.reference())):
        results[name] = [*outputs, *gradients(c, outputs, grad_out.to(c.q.dtype), no_grad_lse)]
    # A backward meets out rounded to its dtype, in D = dout . out; the maths, where rows see few keys, hardly rounds at all.
    few_keys = min(window) >= 0 and sum(window) < 16
    floor = {torch.float64: 1e-13, torch.float32: 4e-7}.get(dtype, torch.finfo(dtype).eps / 2 if few_keys else 4e-7)
    for x, maths, truth in zip(*results.values(), strict=True):
        assert truth.isfinite().all()  # every row sees itself
        error, of_maths = ((y.detach().double() - truth.detach()).norm() for y in (x, maths))
        assert error <= 2 * of_maths + floor * grad_out.double().norm()


@pytest.mark.usefixtures("active")
def test_gradcheck() -> None:
    ends = torch.tensor([0, 3, 3, 7])
    inputs = [x.detach()[:7, :, :4].contiguous().requires_grad_() for x in qkv(torch.float64, 2, 1)]
    assert torch.autograd.gradcheck(
        lambda q, k, v: varlen.varlen_attn(q, k, v, ends, ends, 4, 4, **known(window_size=(2, 1), enable_gqa=True)), inputs
    )


@pytest.mark.usefixtures("active")
def test_right_0_is_causal_though_torch_says_otherwise() -> None:
    """torch compares window_size with a tuple: a list is no causal mask to it, and neither is (5, 0)."""
    q, k, v = qkv()
    expected = hetsp.varlen_attention(q, k, v, cu(), cu(), LONGEST, LONGEST, causal=True, return_lse=False)
    assert torch.equal(attend(q, k, v, window_size=[-1, 0]), expected)
    expected = hetsp.varlen_attention(q, k, v, cu(), cu(), LONGEST, LONGEST, causal=True, window_size=(5, 0), return_lse=False)
    assert torch.equal(attend(q, k, v, window_size=(5, 0)), expected)


@pytest.mark.usefixtures("active")
def test_the_gradient_of_lse_is_dropped_by_torch() -> None:
    """Not by us, but a user who trusts lse.requires_grad should know: only hetsp.varlen_attention has this gradient."""
    q, k, v = qkv()
    _, lse = attend_lse(q, k, v)
    assert lse.requires_grad
    assert all((g == 0).all() for g in torch.autograd.grad(lse[:, :5].sum(), (q, k, v)))
    _, lse = hetsp.varlen_attention(q, k, v, cu(), cu(), LONGEST, LONGEST)
    assert (torch.autograd.grad(lse[:, :5].sum(), q)[0] != 0).any()


def needs_out_variant() -> None:
    if not hasattr(varlen, "varlen_attn_out"):
        pytest.skip("this torch has no varlen_attn_out")


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_form_with_a_given_output(dtype: torch.dtype) -> None:
    needs_out_variant()
    q, k, v = (x.detach() for x in qkv(dtype))
    out, lse = attend_lse(q, k, v)
    buffer = torch.full((TOTAL, 8, 40), torch.nan, dtype=dtype)[..., :32]
    given, given_lse = varlen.varlen_attn_out(
        buffer, q, k, v, cu(), cu(), LONGEST, LONGEST,
        window_size=(-1, 0), enable_gqa=True, return_aux=varlen.AuxRequest(lse=True),
    )  # fmt: skip
    assert given.data_ptr() == buffer.data_ptr()
    assert torch.equal(buffer, out)
    assert torch.equal(given_lse, lse)
    with pytest.raises(InvalidArgument, match=r"out has shape \[109, 8, 31\]"):
        torch_attention.forward_into(buffer[..., :31], q, k, v, cu(), cu(), LONGEST, LONGEST, 0.0, True, False)


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("used", [[32, 64, 96, 48], [1, 1, 1, 1], [128, 128, 128, 128], [1, 128, 0, 128]], ids=str)
def test_slots_of_a_cache_in_part_filled_with_nan(used: list[int]) -> None:
    if "seqused_k" not in inspect.signature(varlen.varlen_attn).parameters:
        pytest.skip(f"varlen_attn of torch {torch.__version__} has no seqused_k")
    torch.manual_seed(0)
    cu_q, cu_k = torch.arange(5, dtype=torch.int32), torch.arange(0, 513, 128, dtype=torch.int32)
    q = torch.randn(4, 8, 64)
    slots = [torch.full((4, 128, 8, 64), torch.nan) for _ in range(2)]
    real = [torch.randn(sum(used), 8, 64) for _ in range(2)]
    for slot, rows in zip(slots, real, strict=True):
        for i, part in enumerate(rows.split(used)):
            slot[i, : used[i]] = part
    options = {"seqused_k": torch.tensor(used, dtype=torch.int32)}
    with torch.no_grad():
        ours = varlen.varlen_attn(q, slots[0].flatten(0, 1), slots[1].flatten(0, 1), cu_q, cu_k, 1, 128, **options)
        cu_real = torch.tensor([0, *used]).cumsum(0).int()
        assert torch.equal(ours, varlen.varlen_attn(q, *real, cu_q, cu_real, 1, 128))
        if on_cuda():
            return  # what seqused_k holds is not checked there
        options = {"seqused_k": torch.tensor([1, 129, 0, 0], dtype=torch.int32)}
        with pytest.raises(InvalidArgument, match=r"seqused_k\[1\] is 129, must be in \[0, 128\]"):
            varlen.varlen_attn(q, slots[0].flatten(0, 1), slots[1].flatten(0, 1), cu_q, cu_k, 1, 128, **options)


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (384, 0)], ids=str)
def test_a_sequence_alone_is_bitwise_the_sequence_in_a_batch(window: tuple[int, int]) -> None:
    q, k, v = (x.detach() for x in qkv(torch.bfloat16))
    alone = torch.tensor([0, 70], dtype=torch.int32)
    options = known(window_size=window, enable_gqa=True, num_splits=1)
    out = varlen.varlen_attn(q[5:75], k[5:75], v[5:75], alone, alone, 70, 70, **options)
    assert torch.equal(out, attend(q, k, v, window_size=window)[5:75])


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype: torch.dtype) -> None:
    q, k, v = qkv(dtype)
    ops = torch.ops.torch_attn
    shared = known(enable_gqa=True).values()
    torch.library.opcheck(ops._varlen_attn, (q, k, v, cu(), cu(), LONGEST, LONGEST, True, None, [-1, 0], *shared))
    q, k, v = (x.detach() for x in (q, k, v))
    out, lse, state = ops._varlen_attn(q, k, v, cu(), cu(), LONGEST, LONGEST)
    args = (torch.randn_like(out), q, k, v, out, lse, cu(), cu(), LONGEST, LONGEST, False, state)
    torch.library.opcheck(ops._varlen_attn_backward, args, test_utils=["test_schema", "test_faketensor"])
    needs_out_variant()
    args = (torch.empty_like(q), q, k, v, cu(), cu(), LONGEST, LONGEST)
    torch.library.opcheck(ops._varlen_attn_out, args, test_utils=["test_schema", "test_faketensor"])


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("layout", ["heads, rows", "slices of one projection"])
def test_opcheck_of_other_strides(layout: str) -> None:
    """torch's fakes promise results with the strides of empty_like(query): those of a dense query in any order."""
    q, k, v = (x.detach() for x in qkv(heads=4, heads_kv=4))
    if layout == "heads, rows":
        q, k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v))
    else:
        q, k, v = torch.cat([q, k, v], 2).split(32, 2)
    ops = torch.ops.torch_attn
    torch.library.opcheck(ops._varlen_attn, (*(x.requires_grad_() for x in (q, k, v)), cu(), cu(), LONGEST, LONGEST, True))
    q, k, v = (x.detach() for x in (q, k, v))
    out, lse, state = ops._varlen_attn(q, k, v, cu(), cu(), LONGEST, LONGEST)
    assert out.stride() == torch.empty_like(q).stride()
    args = (torch.randn_like(out), q, k, v, out, lse, cu(), cu(), LONGEST, LONGEST, False, state)
    torch.library.opcheck(ops._varlen_attn_backward, args, test_utils=["test_schema", "test_faketensor"])


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_as_one_graph(backend: str) -> None:
    torch._dynamo.reset()
    ends = cu()

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        options = known(window_size=(-1, 0), enable_gqa=True, return_aux=varlen.AuxRequest(lse=True))
        return varlen.varlen_attn(q, k, v, ends, ends, LONGEST, LONGEST, **options)

    compiled = torch.compile(run, backend=backend, fullgraph=True, dynamic=True)
    inputs = qkv()
    eager, graph = run(*inputs), compiled(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(eager, graph, strict=True))
    for x, y in zip(torch.autograd.grad(eager[0].sum(), inputs), torch.autograd.grad(graph[0].sum(), inputs), strict=True):
        assert torch.equal(x, y)


@pytest.mark.usefixtures("active")
def test_autocast_changes_nothing_below_torchs_operator() -> None:
    q, k, v = qkv()
    with torch.autocast(q.device.type, torch.bfloat16):
        out = attend(q, k, v)
    assert out.dtype == torch.float32
    assert torch.equal(out, attend(q, k, v))


# The arguments behind (q, k, v, cu_q, cu_k, max_q, max_k, dropout_p, is_causal, return_debug_mask) as each release passes them.
OLD = {"scale": None, "window_size_left": None, "window_size_right": None, "seqused_k": None, "alibi_slopes": None}
SCHEMAS = {
    "2.10": OLD,
    "2.11": {**OLD, "window_size_left": -1, "window_size_right": -1},
    "2.13": {**OLD, "window_size_left": -1, "window_size_right": -1, "block_table": None, "num_splits": None},
    "2.14": {**OLD, "window_size_left": -1, "window_size_right": -1, "block_table": None, "num_splits": 1},
    "a later one": {**OLD, "block_table": None, "num_splits": None, "something_new": None, "a_new_switch": False},
}


@pytest.mark.parametrize("release", SCHEMAS)
@pytest.mark.parametrize("is_causal", [False, True])
def test_the_schema_of_each_release(release: str, is_causal: bool) -> None:
    q, k, v = qkv(torch.float64)
    options = SCHEMAS[release]
    shared = (cu(), cu(), LONGEST, LONGEST, 0.0, is_causal)
    out, lse, *rest = torch_attention.forward(q.detach(), k.detach(), v.detach(), *shared, False, **options)
    expected = hetsp.varlen_attention(q, k, v, cu(), cu(), LONGEST, LONGEST, causal=is_causal)
    assert torch.equal(out, expected[0])
    assert torch.equal(lse, expected[1])
    assert rest[0].dtype == torch.uint64
    assert rest[0].shape == (2,)
    grad = torch.randn_like(out)
    options = {name: options[name] for name in ("scale", "window_size_left", "window_size_right")}
    ours = torch_attention.backward(
        grad, *(x.detach() for x in (q, k, v)), out, lse, *shared, rest[0], torch.empty(0), **options
    )
    for x, y in zip(ours, torch.autograd.grad(expected[0], (q, k, v), grad), strict=True):
        assert torch.equal(x, y)


@pytest.mark.usefixtures("active")
@pytest.mark.parametrize("is_causal", [False, True])
def test_the_dense_form(is_causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 40, heads, 16, requires_grad=True) for heads in (4, 4, 4))
    out, lse, *_ = torch.ops.aten._flash_attention_forward(q, k, v, None, None, 40, 40, 0.0, is_causal, False)
    assert lse.shape == (3, 4, 40)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    truth = sdpa(*(x.transpose(1, 2).double() for x in (q, k, v)), is_causal=is_causal).transpose(1, 2)
    assert norm_error(out, truth) < 4e-7
    grad = torch.randn(3, 40, 4, 16)
    for x, y in zip(
        torch.autograd.grad(out, (q, k, v), grad), torch.autograd.grad(truth, (q, k, v), grad.double()), strict=True
    ):
        assert norm_error(x, y) < 4e-7


REFUSED = {
    "dropout": ((0.1, False, False), {}, r"dropout_p is 0\.1, must be 0"),
    "weights": ((0.0, False, True), {}, "return_debug_mask is True"),
    "alibi": ((0.0, False, False), {"alibi_slopes": torch.ones(8)}, r"alibi_slopes is a tensor of shape \[8\], must be None"),
    "pages": ((0.0, False, False), {"block_table": torch.zeros(5, 1)}, r"block_table is a tensor of shape \[5, 1\]"),
    "unknown": ((0.0, False, False), {"softcap": 3.0}, r"softcap is 3\.0, must be None: HETSP honours num_splits, scale"),
    "window": ((0.0, False, False), {"window_size_left": -2}, r"window_size\[0\] is -2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    args, options, message = REFUSED[name]
    with pytest.raises(InvalidArgument, match=message):
        torch_attention.forward(*(x.detach() for x in qkv()), cu(), cu(), LONGEST, LONGEST, *args, **options)


@pytest.mark.usefixtures("active")
def test_refusals_arrive_through_torch() -> None:
    q, k, v = (x.detach() for x in qkv())
    with pytest.raises(InvalidArgument, match="cum_seq_k is None"):
        varlen.varlen_attn(q, k, v, cu(), None, LONGEST, LONGEST, **known(enable_gqa=True))
    with pytest.raises(InvalidArgument, match=r"dropout_p is 0\.5"):
        torch.ops.aten._flash_attention_forward(q, k, v, cu(), cu(), LONGEST, LONGEST, 0.5, False, False)
    only_on_cpu(CONTENTS)
    with pytest.raises(InvalidArgument, match="max_seqlen_q is 69, but sequence 2 has 70 tokens"):
        varlen.varlen_attn(q, k, v, cu(), cu(), 69, LONGEST, **known(enable_gqa=True))
