"""Errors against float64 maths beside those of what users have: a loop of scaled_dot_product_attention over the sequences."""

import functools

import pytest
import torch
from torch import Tensor

from bench.attention.contenders import Batch, Setting, each, hetsp_varlen, sdpa_bucketed
from tests.python.attention.reference import Case, norm_error
from tests.support.devices import only_on_cpu

FLOOR = {torch.float64: 1e-14, torch.float32: 1e-7, torch.bfloat16: 1e-7, torch.float16: 1e-7}
NAMES = ("out", "dq", "dk", "dv")


@functools.cache
def errors_of_sdpa_and_truth(setting: Setting, device: torch.device) -> tuple[list[float], list[Tensor]]:
    """The same for every instruction set of ours, so computed once: norm errors of the loop; out, dq, dk, dv in float64."""
    batch = Batch(setting)
    leaves = [x.detach().double().requires_grad_() for x in (batch.q, batch.k, batch.v)]
    out, _ = Case(*leaves, list(setting.lengths), list(setting.lengths)).reference()
    truth = [out.detach(), *torch.autograd.grad(out, leaves, batch.grad.double())]
    theirs = batch.run(sdpa_bucketed(each(setting.lengths), "enable_gqa"))
    return [norm_error(x, expected) for x, expected in zip(theirs, truth, strict=True)], truth


def errors(setting: Setting) -> dict[str, tuple[float, float]]:
    """(ours, the loop's) by name."""
    theirs, truth = errors_of_sdpa_and_truth(setting, torch.get_default_device())
    ours = Batch(setting).run(hetsp_varlen(setting.lengths))
    own = [norm_error(x, expected) for x, expected in zip(ours, truth, strict=True)]
    return dict(zip(NAMES, zip(own, theirs, strict=True), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("lengths", [(700, 130, 64, 33), (65,) * 6, (300, 40)], ids=str)
def test_error_is_at_most_twice_that_of_the_sdpa_loop(lengths: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
    for name, (ours, theirs) in errors(Setting(lengths, 2, 1, dim, dtype, backward=True)).items():
        assert ours <= max(2 * theirs, FLOOR[dtype]), f"{name}: {ours:.3g}, the loop's is {theirs:.3g}"


@pytest.mark.parametrize("tokens", [512, 4096])
def test_bfloat16_gradients_are_at_most_as_far_from_float64_as_those_of_sdpa(tokens: int) -> None:
    only_on_cpu("torch's CUDA kernels add in float32, as ours do")
    # SDPA adds dk and dv in bfloat16, tile by tile, and its error grows with the sequence; sums in float32 round once.
    for name, (ours, theirs) in errors(Setting((tokens,), 1, 1, 64, torch.bfloat16, backward=True)).items():
        assert ours <= theirs, f"{name}: {ours:.3g}, SDPA's is {theirs:.3g}"
