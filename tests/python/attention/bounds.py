"""How far varlen_attention may be from float64 maths on a case: twice as far as the plain maths in the same dtype."""

import torch
from torch import Tensor

from tests.python.attention.reference import Case, gradients, norm_error

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
    # What no backward can undo is that lse and out reach it rounded. It shows in dsink (a sum over out), and where rows see
    # so few keys that the sums themselves are nearly exact.
    rounded = unavoidable_sink_error(exact, truth, outputs[0], grad_out)
    few = 0.0
    if few_keys(case) and dtype != torch.float64:
        largest = truth[1].detach()[truth[1].isfinite()].abs().max().item() if truth[1].isfinite().any() else 0.0
        few = 2**-24 * largest + (torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0)
    for name, x, expected, reference in zip(("out", "lse", "dq", "dk", "dv", "dsink"), ours, true, same, strict=False):
        allowed = max(2 * norm_error(reference, expected), FLOOR[dtype])
        allowed += few if name.startswith("d") else 0.0
        allowed += rounded if name == "dsink" else 0.0
        error = norm_error(x, expected)
        assert error <= allowed, f"{name}: {error:.3g} > {allowed:.3g}; q {case.lengths_q} k {case.lengths_k} {case.window}"


def few_keys(case: Case) -> bool:
    """Whether a window or short sequences leave each row at most 16 keys."""
    left, right = case.window[0], 0 if case.causal else case.window[1]
    return max(case.lengths_k, default=0) <= 16 or (left >= 0 and right >= 0 and left + right < 16)


def unavoidable_sink_error(exact: Case, truth: tuple[Tensor, Tensor], out: Tensor, grad_out: Tensor) -> float:
    """Norm of sum_i e^(sink - lse_i) dout_i . (out as stored - out), over the norm of the true gradient."""
    if exact.sink is None:
        return 0.0
    weight = torch.exp(exact.sink[:, None] - truth[1]).detach()
    lost = (weight * ((out.double() - truth[0]).detach() * grad_out.double()).sum(-1).T).sum(1)
    scale = (weight * (truth[0].detach() * grad_out.double()).sum(-1).T).sum(1)
    return 2 * (lost.norm() / scale.norm().clamp_min(1e-300)).item()
