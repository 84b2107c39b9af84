"""The definition in docs/attention.md, dense, one sequence after another, in any dtype; gradients by autograd.

In float64 it is the truth. In the dtype of a case it is "PyTorch's own maths", whose error ours may at most double.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

import hetsp_ext as hetsp


@dataclass
class Case:
    """One packed batch: tensors are leaves that require gradients."""

    q: Tensor
    k: Tensor
    v: Tensor
    lengths_q: list[int]
    lengths_k: list[int]
    scale: float | None = None
    causal: bool = True
    window: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    sink: Tensor | None = None
    int64: bool = False
    deterministic: bool = False
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.q, self.k, self.v] + ([] if self.sink is None else [self.sink])

    def cu(self, lengths: list[int]) -> Tensor:
        return torch.tensor([0, *lengths]).cumsum(0).to(torch.int64 if self.int64 else torch.int32)

    def ours(self) -> tuple[Tensor, Tensor]:
        longest = max(self.lengths_q, default=0), max(self.lengths_k, default=0)
        return hetsp.varlen_attention(
            self.q, self.k, self.v, self.cu(self.lengths_q), self.cu(self.lengths_k), *longest,
            softmax_scale=self.scale, causal=self.causal, window_size=self.window, softcap=self.softcap, sink=self.sink,
            deterministic=self.deterministic,
        )  # fmt: skip

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another dtype, as fresh leaves."""
        fresh = [None if x is None else x.detach().to(dtype).requires_grad_() for x in (self.q, self.k, self.v, self.sink)]
        return Case(*fresh[:3], self.lengths_q, self.lengths_k, self.scale, self.causal, self.window, self.softcap, fresh[3])

    def reference(self) -> tuple[Tensor, Tensor]:
        """(out, lse) of every row; rows past the last sequence: zeros and, as with keyless rows, lse -inf or the sink."""
        outs, lses, q0, k0 = [], [], 0, 0
        lengths = [*zip(self.lengths_q, self.lengths_k, strict=True), (self.q.shape[0] - sum(self.lengths_q), 0)]
        for m, n in lengths:
            out, lse = dense(self, self.q[q0 : q0 + m], self.k[k0 : k0 + n], self.v[k0 : k0 + n])
            outs.append(out), lses.append(lse)
            q0, k0 = q0 + m, k0 + n
        return torch.cat(outs), torch.cat(lses, 1)


def scored(case: Case, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence: scores (H, m, n), hidden ones included, and which are visible (m, n)."""
    (m, heads, d), n = q.shape, k.shape[0]
    k = k.repeat_interleave(heads // k.shape[1], dim=1)
    scores = torch.einsum("ihd,jhd->hij", q, k) * (d**-0.5 if case.scale is None else case.scale)
    if case.softcap > 0:
        scores = case.softcap * torch.tanh(scores / case.softcap)
    left, right = case.window[0], 0 if case.causal else case.window[1]
    distance = torch.arange(n)[None, :] - (torch.arange(m)[:, None] + n - m)
    visible = torch.ones(m, n, dtype=torch.bool)
    if left >= 0:
        visible &= distance >= -left
    if right >= 0:
        visible &= distance <= right
    return scores, visible


def dense(case: Case, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence: q (m, H, d), k (n, H_kv, d), v (n, H_kv, dv) -> out (m, H, dv), lse (H, m)."""
    (m, heads, _), n = q.shape, k.shape[0]
    v = v.repeat_interleave(heads // v.shape[1], dim=1)
    scores, visible = scored(case, q, k)
    scores = scores.masked_fill(~visible, -torch.inf)
    if case.sink is not None:
        scores = torch.cat([scores, case.sink.to(scores.dtype)[:, None, None].expand(heads, m, 1)], -1)
    keyless = ~visible.any(-1) if case.sink is None else torch.zeros(m, dtype=torch.bool)
    scores = scores.masked_fill(keyless[None, :, None], 0.0)  # any finite value: their softmax is thrown away below
    if scores.shape[-1] == 0:
        return q.new_zeros(m, heads, v.shape[-1]), q.new_full((heads, m), -torch.inf)
    lse = torch.logsumexp(scores, -1).masked_fill(keyless[None], -torch.inf)
    weights = torch.softmax(scores, -1)[..., :n].masked_fill(~visible, 0.0)
    return torch.einsum("hij,jhd->ihd", weights, v), lse


def dense_backward(case: Case, rows: slice, keys: slice, lse: Tensor, delta: Tensor, grad_out: Tensor) -> list[Tensor]:
    """One sequence: dq, dk, dv by the formula in docs/attention.md from a given lse and D, both (H, rows)."""
    q, k, v = (x.detach()[at].requires_grad_() for x, at in zip((case.q, case.k, case.v), (rows, keys, keys), strict=True))
    scores, visible = scored(case, q, k)
    wide = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    with torch.no_grad():
        norms = lse[:, rows, None]
        p = torch.exp(scores - norms.masked_fill(norms == -torch.inf, 0.0)).masked_fill(~visible | (norms == -torch.inf), 0.0)
        ds = p * (torch.einsum("ihd,jhd->hij", grad_out[rows], wide) - delta[:, rows, None])
    parts = (ds * scores).sum() + torch.einsum("hij,jhd,ihd->", p, wide, grad_out[rows])
    return list(torch.autograd.grad(parts, (q, k, v)))


LENGTHS = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257]
DIMS = [(16, 16), (17, 17), (32, 32), (40, 40), (64, 64), (72, 72), (96, 96), (48, 32), (80, 64), (128, 128)]
WINDOWS = [(-1, -1)] * 4 + [(0, 0), (1, 0), (0, -1), (7, 3), (64, 64), (-1, 2), (1025, 1025)]


def strided(x: Tensor, layout: str) -> Tensor:
    """The same numbers under other strides: head-major, or with a gap (of NaN) after each row."""
    if layout == "head_major":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "gaps":
        wide = x.new_full((x.shape[0], x.shape[1], x.shape[2] + 5), torch.nan)
        wide[..., : x.shape[2]] = x
        return wide[..., : x.shape[2]]
    return x


def random_case(seed: int, dtype: torch.dtype) -> Case:
    """Biased to corners: lengths around the tiles, empty sequences, unused tails, GQA, windows, strides."""
    pick = random.Random(seed).choice
    torch.manual_seed(seed)
    count = pick([1, 2, 3, 5])
    lengths_q = [pick(LENGTHS) for _ in range(count)]
    lengths_k = list(lengths_q) if pick([True, False]) else [pick(LENGTHS) for _ in range(count)]
    heads, heads_kv = pick([(1, 1), (2, 2), (6, 2), (4, 1)])
    (d, dv), tail = pick(DIMS), pick([0, 0, 3])
    layout = pick(["packed", "packed", "head_major", "gaps"])
    acc = torch.float64 if dtype == torch.float64 else torch.float32

    def make(rows: int, heads: int, dim: int) -> Tensor:
        return strided(torch.randn(rows + tail, heads, dim, dtype=torch.float64).to(dtype), layout).requires_grad_()

    return Case(
        make(sum(lengths_q), heads, d),
        make(sum(lengths_k), heads_kv, d),
        make(sum(lengths_k), heads_kv, dv),
        lengths_q,
        lengths_k,
        scale=pick([None, None, 0.4]),
        causal=pick([True, True, False]),
        window=pick(WINDOWS),
        softcap=pick([0.0, 0.0, 15.0]),
        sink=torch.randn(heads, dtype=acc).requires_grad_() if pick([True, False]) else None,
        int64=pick([True, False]),
    )


def norm_error(x: Tensor, expected: Tensor) -> float:
    """|x - expected| / |expected| over the finite places; infinities must agree exactly, NaN is infinitely far."""
    x, expected = x.detach().double(), expected.detach().double()
    finite = expected.isfinite()
    if not torch.equal(x[~finite], expected[~finite]) or not x[finite].isfinite().all():
        return float("inf")
    difference = (x[finite] - expected[finite]).norm()
    return 0.0 if difference == 0 else (difference / expected[finite].norm().clamp_min(1e-300)).item()


def gradients(case: Case, outputs: tuple[Tensor, Tensor], grad_out: Tensor, grad_lse: Tensor) -> list[Tensor]:
    """Of sum(out grad_out) + sum(lse grad_lse) over the rows whose lse is finite."""
    out, lse = outputs
    if not out.requires_grad:  # no sequence with both queries and keys
        return [torch.zeros_like(x) for x in case.leaves]
    finite = lse.detach().isfinite()
    weight = torch.where(finite, grad_lse.to(lse.dtype), 0)
    return list(
        torch.autograd.grad(
            [out, lse], case.leaves, [grad_out.to(out.dtype), weight], materialize_grads=True, allow_unused=True
        )
    )
