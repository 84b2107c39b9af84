"""Attention to keys in several pieces: values against the whole, waiting for flags, and what is refused."""

import contextlib
import random
import threading
import time

import pytest
import torch
from torch import Tensor

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument, NotArrived
from tests.support.devices import on_cuda, only_on_cpu

FORWARD = torch.ops.hetsp.pieces_attention_forward.default
BACKWARD = torch.ops.hetsp.varlen_attention_backward.default
TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Of out and lse against float64: a rounding of the result and some of the accumulate type a link.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def qkv(rows: int, keys: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    shapes = ((rows, 4, 8), (keys, 2, 8), (keys, 2, 5))
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]


def causal(rows: int, keys: int) -> Tensor:
    cu = [torch.tensor([0, n], dtype=torch.int32) for n in (rows, keys)]
    return hetsp.varlen_segments(*cu, rows, keys, rows, keys)


def chain(q: Tensor, pieces: list[tuple[Tensor, Tensor]], segments: Tensor, *seed: Tensor) -> tuple[Tensor, ...]:
    """(out, lse) of the accumulate type, from a seed or from nothing."""
    k, v = ([pair[side] for pair in pieces] for side in (0, 1))
    return FORWARD(q, k, v, segments, None, [], 0.4, 0.0, None, *(seed or (None, None)), True, 0.0)[:2]


def cut(k: Tensor, v: Tensor, rows: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Pieces in memory of their own, as they are received."""
    return [(a.clone(), b.clone()) for a, b in zip(k.split(rows), v.split(rows), strict=True)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_pieces_give_what_the_whole_does(seed: int, dtype: torch.dtype) -> None:
    rng = random.Random(seed)
    lengths = [rng.choice([0, 1, 3, 17, 64, 130]) for _ in range(rng.randint(1, 4))]
    total = sum(lengths)
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    q, k, v = qkv(total, total, dtype, seed)
    segments = hetsp.varlen_segments(cu, cu, total, total, max(lengths), max(lengths), True, (rng.choice([-1, 20]), -1))
    sink = torch.randn(4, dtype=torch.float64) if seed % 2 else None
    ends = sorted(rng.randint(0, total) for _ in range(rng.randint(0, 4)))
    rows = [b - a for a, b in zip([0, *ends], [*ends, total], strict=True)]
    options = {"softcap": rng.choice([0.0, 1.5]), "sink": sink}
    out, lse, late = hetsp.pieces_attention(q, cut(k, v, rows), segments, **options)
    wide = [x.to(torch.float64) for x in (q, k, v)]
    expected, expected_lse = hetsp.segment_attention(*wide, segments, **options)
    assert out.dtype == dtype
    assert late.tolist() == [0]
    torch.testing.assert_close(out.to(torch.float64), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    torch.testing.assert_close(lse.to(torch.float64), expected_lse, rtol=1e-4, atol=1e-4)


def test_seeds_and_partial_results_make_a_chain_of_chains() -> None:
    q, k, v = qkv(40, 90)
    segments, pieces = causal(40, 90), cut(k, v, [20, 30, 25, 15])
    whole = chain(q, pieces, segments)
    part = chain(q, pieces[:2], hetsp.piece_segments(segments, 0, 50))
    again = chain(q, pieces[2:], hetsp.piece_segments(segments, 50, 40), *part)
    assert torch.equal(whole[0], again[0])
    assert torch.equal(whole[1], again[1])


def test_a_piece_by_piece_backward_adds_up_to_the_whole() -> None:
    q, k, v = (x.double() for x in qkv(40, 70))
    segments, rows = causal(40, 70), [25, 0, 45]
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    expected_out, _ = hetsp.segment_attention(*leaves, segments)
    grad = torch.randn_like(expected_out)
    expected = torch.autograd.grad(expected_out, leaves, grad)
    out, lse, _ = hetsp.pieces_attention(q, cut(k, v, rows), segments)
    delta = hetsp.attention_delta(grad, out, lse)
    dq, dkv, begin = torch.zeros_like(q), [], 0
    for piece in cut(k, v, rows):
        own = hetsp.piece_segments(segments, begin, piece[0].shape[0])
        hop = BACKWARD(grad, None, q, *piece, out, lse, own, 8**-0.5, 0.0, None, True, delta)
        dq += hop[0]
        dkv.append(hop[1:3])
        begin += piece[0].shape[0]
    for found, wanted in zip((dq, *(torch.cat(x) for x in zip(*dkv, strict=True))), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_it_waits_for_flags_that_another_thread_sets() -> None:
    q, k, v = qkv(60, 90, torch.bfloat16)
    segments, pieces = causal(60, 90), cut(k, v, [30, 30, 30])
    expected = hetsp.pieces_attention(q, pieces, segments)
    arriving = [(torch.full_like(a, torch.nan), torch.full_like(b, torch.nan)) for a, b in pieces[1:]]
    ready = torch.tensor([0, 2**31 - 1, 6], dtype=torch.int32)  # the second is about to wrap
    aside = torch.cuda.Stream() if on_cuda() else None  # a copy in the call's own stream would wait behind the call

    def bring(arriving: list[tuple[Tensor, Tensor]], ready: Tensor) -> None:
        with contextlib.nullcontext() if aside is None else torch.cuda.stream(aside):
            for index in (2, 1):
                time.sleep(0.02)
                for to, whence in zip(arriving[index - 1], pieces[index], strict=True):
                    to.copy_(whence)
                ready[index] += 1

    # A rehearsal: a GPU may not load a kernel while another waits, and which one a sum takes depends on where its words lie.
    bring([(torch.empty_like(a), torch.empty_like(b)) for a, b in arriving], ready.clone())
    if aside is not None:
        torch.cuda.synchronize()

    sender = threading.Thread(target=bring, args=(arriving, ready))
    sender.start()
    found = hetsp.pieces_attention(q, [pieces[0], *arriving], segments, ready, [None, 2**31, 7], patience=20)
    sender.join()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_a_piece_that_does_not_come_is_named() -> None:
    q, k, v = qkv(60, 90)
    ready = torch.tensor([0, 6, 0], dtype=torch.int32)
    arguments = (q, cut(k, v, [30, 30, 30]), causal(60, 90), ready, [None, 7, None])
    if on_cuda():  # which cannot raise
        out, lse, late = hetsp.pieces_attention(*arguments, patience=0.01)
        assert late.tolist() == [2]
        assert out.isnan().all()
        assert lse.isnan().all()
        return
    with pytest.raises(NotArrived, match=r"piece 1 of the keys did not arrive within 0\.01 s: its flag is 6, must reach 7"):
        hetsp.pieces_attention(*arguments, patience=0.01)


def test_opcheck_and_compile() -> None:
    q, k, v = qkv(20, 30)
    pieces, segments = cut(k, v, [12, 18]), causal(20, 30)
    ready = torch.tensor([1, 1], dtype=torch.int32)
    args = ([a for a, _ in pieces], [b for _, b in pieces], segments, ready, [1, -1], 0.4, 0.0, None, None, None, False, 1.0)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(FORWARD, (q, *args), test_utils=tests)


def test_a_derivative_is_refused_in_words() -> None:
    q, k, v = qkv(20, 30)
    out, *_ = hetsp.pieces_attention(q.requires_grad_(), cut(k, v, [12, 18]), causal(20, 30))
    with pytest.raises(NotImplementedError, match="no derivative"):
        out.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pieces": []}, "pieces is empty"),
        ({"pieces": 17}, "there are 17 pieces of keys, must be 1 to 16"),
        ({"k1": torch.zeros(18, 2, 9)}, r"k\[1\] has shape \[18, 2, 9\], must be \[any, 2, 8\]"),
        ({"k1": torch.zeros(18, 2, 8).double()}, r"k\[1\] has dtype float64, must be float32"),
        ({"k1": torch.zeros(18, 8, 2).transpose(1, 2)}, r"k\[1\] has a last dimension of stride 2, must be contiguous"),
        ({"k1": torch.zeros(17, 2, 8)}, r"v\[1\] has shape \[18, 2, 5\], must be \[17, 2, 5\]"),
        ({"epochs": [1]}, "there are 1 epochs for 2 pieces"),
        ({"epochs": [1, 2**32], "ready": torch.zeros(2, dtype=torch.int32)}, "an epoch is 4294967296"),
        ({"epochs": [None, 3]}, "epochs are given without the flags"),
        ({"ready": torch.zeros(3, dtype=torch.int32)}, r"ready has shape \[3\], must be \[2\]"),
        ({"ready": torch.zeros(2)}, "ready has dtype float32, must be int32"),
        ({"ready": torch.zeros(4, dtype=torch.int32)[::2]}, "ready is not contiguous"),
        ({"patience": -1.0}, "patience is -1 s, must be 0 to 1e"),
        ({"segments": torch.tensor([[0, 20, 0, 31, 0, 0, -1, -1]])}, r"segment 0 has key rows \[0, 31\)"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_what_cannot_be_honoured_is_refused(options: dict, message: str) -> None:
    only_on_cpu("the tensors here are its own")
    options = dict(options)
    q, k, v = qkv(20, 30)
    pieces = cut(k, v, [12, 18])
    if isinstance(count := options.pop("pieces", None), list):
        pieces = []
    elif count:
        pieces = [pieces[0]] * count
    if "k1" in options:
        pieces[1] = options.pop("k1"), pieces[1][1]
    with pytest.raises(InvalidArgument, match=message):
        hetsp.pieces_attention(q, pieces, options.pop("segments", causal(20, 30)), **options)
