"""How far varlen_attention may be from float64 maths on a case: twice as far as the plain maths in the same dtype."""

import torch
from torch import Tensor

from tests.python.attention.reference import Case, dense_backward, gradients, norm_error

FLOOR = {torch.float64: 1e-14, torch.float32: 1e-7, torch.bfloat16: 1e-7, torch.float16: 1e-7}


def check_against_maths(case: Case, grad_out: Tensor, grad_lse: Tensor) -> None:
    """out, lse and all gradients; `grad_out` as the backward gets it, whatever its strides; an error names the case."""
    dtype = case.q.dtype
    exact, plain = case.to(torch.float64), case if dtype == torch.float64 else case.to(dtype)
    outputs, truth, maths = case.ours(), exact.reference(), plain.reference()
    assert outputs[0].dtype == dtype
    assert outputs[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    ours = [*outputs, *gradients(case, outputs, grad_out, grad_lse)]
    true = [*truth, *gradients(exact, truth, grad_out, grad_lse)]
    same = [*maths, *gradients(plain, maths, grad_out, grad_lse)]
    lost = unavoidable(exact, truth, grad_out, grad_lse, true)
    for name, x, expected, reference in zip(("out", "lse", "dq", "dk", "dv", "dsink"), ours, true, same, strict=False):
        allowed = max(2 * norm_error(reference, expected), FLOOR[dtype]) + 2 * lost.get(name, 0.0)
        error = norm_error(x, expected)
        assert error <= allowed, f"{name}: {error:.3g} > {allowed:.3g}; q {case.lengths_q} k {case.lengths_k} {case.window}"


def unavoidable(
    exact: Case, truth: tuple[Tensor, Tensor], grad_out: Tensor, grad_lse: Tensor, gradients_of_truth: list[Tensor]
) -> dict[str, float]:
    """Norm errors that no backward can undo, because out, lse and D reach it rounded; the formula itself is in float64 here.

    They show in dsink, a sum over D, and where the plain maths has so few terms to add that it is nearly exact; elsewhere they
    are smaller than its errors, and nothing is allowed for them.
    """
    dtype, acc = grad_out.dtype, grad_lse.dtype
    out, lse = truth[0].detach().to(dtype).double(), truth[1].detach().to(acc).double()
    dout = grad_out.double().masked_fill(~out.any(-1, keepdim=True), 0.0)  # not read: NaN past the last sequence
    delta = ((dout * out).sum(-1).T - grad_lse.double()).to(acc).double()
    lost = {}
    if exact.sink is not None:
        weight = torch.exp(exact.sink.detach().double()[:, None] - lse)
        terms, expected = weight * delta, gradients_of_truth[-1]
        size = (terms.abs() * (1 + lse.abs())).sum(1).norm() / expected.norm().clamp_min(1e-300)  # of what cancels
        lost["dsink"] = norm_error(-terms.sum(1), expected) + torch.finfo(acc).eps / 2 * size.item()
    if few_terms(exact) and exact.lengths_q:
        found, sizes, q0, k0 = [torch.zeros_like(x) for x in (exact.q, exact.k, exact.v)], [], 0, 0
        for m, n in zip(exact.lengths_q, exact.lengths_k, strict=True):
            rows, keys = slice(q0, q0 + m), slice(k0, k0 + n)
            for x, part, at in zip(found, dense_backward(exact, rows, keys, lse, delta, dout), (rows, keys, keys), strict=True):
                x[at] = part
            sizes.append(size_of_scores(exact, rows, keys))
            q0, k0 = q0 + m, k0 + n
        names = ("dq", "dk", "dv")
        # One key's lse is its score: a dot product that was lucky in the plain maths need not be so in ours.
        finite = truth[1][:, :q0].isfinite()
        size = torch.cat(sizes, 1)[finite].norm() / truth[1][:, :q0][finite].norm().clamp_min(1e-300)
        lost["lse"] = torch.finfo(acc).eps / 2 * size.item()
        lost |= {name: norm_error(x, e) for name, x, e in zip(names, found, gradients_of_truth[2:5], strict=True)}
    return lost


def size_of_scores(case: Case, rows: slice, keys: slice) -> Tensor:
    """One sequence: the largest sum of |scale q_x k_x| over a row's keys (H, m), of which a score's rounding is a share."""
    m, heads, n = rows.stop - rows.start, case.q.shape[1], keys.stop - keys.start
    if n == 0:
        return case.q.new_zeros(heads, m)
    q, k = case.q.detach()[rows].abs(), case.k.detach()[keys].abs().repeat_interleave(heads // case.k.shape[1], dim=1)
    scale = case.q.shape[-1] ** -0.5 if case.scale is None else abs(case.scale)
    return torch.einsum("ihd,jhd->hij", q, k).amax(-1) * scale


def few_terms(case: Case) -> bool:
    """Whether the plain maths rounds hardly anything: each row sees at most a tile's keys, or a dot product has few terms."""
    left, right = case.window[0], 0 if case.causal else case.window[1]
    few_keys = max(case.lengths_k, default=0) <= 64 or (left >= 0 and right >= 0 and left + right < 64)
    return few_keys or min(case.q.shape[-1], case.v.shape[-1]) < 16
