"""The check of a step against the plainest computation there is: one rank, one document at a time, PyTorch's own attention."""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

import hetsp_ext

from ..errors import HetspError

__all__ = ["BARS", "Verification", "VerificationFailed", "verify"]

# Largest relative difference that a right implementation stays under. At 1e-5 one missing key among many would go unseen, so
# a claim of correctness rests on float64. No bar for bfloat16: its rounding hides everything else.
BARS = {"float32": 1e-5, "float64": 1e-10}


class VerificationFailed(HetspError, RuntimeError):
    """The step's loss or gradients are not those of the plain computation."""


@dataclass(frozen=True)
class Verification:
    """Differences relative to the reference: norm of the difference over norm of the reference."""

    loss_relative_difference: float
    max_gradient_relative_difference: float
    worst_gradient: str
    gradients_compared: int
    degrees: list[int]

    @property
    def largest(self) -> float:
        return max(self.loss_relative_difference, self.max_gradient_relative_difference)


def verify(
    model: LlamaForCausalLM, reference: LlamaForCausalLM, documents: hetsp_ext.StepSequences, plan: hetsp_ext.Plan, loss: float
) -> Verification:
    """Compares `loss` and the summed gradients of `model` with those of `reference`, computed here and now.

    Args:
        model: holds the gradients of the step.
        reference: the same weights with attn_implementation="sdpa"; its gradients are overwritten.
        documents: of the step. plan: how the step was run; only its degrees are reported.
    """
    reference.zero_grad(set_to_none=True)
    counted = sum(max(length - 1, 0) for length in documents.lengths)
    expected = 0.0
    for index, length in enumerate(documents.lengths):
        if length < 2:
            continue
        ids = documents.read(index, 0, length)["tokens"].to(reference.device)
        logits = reference(ids[None], use_cache=False).logits[0]
        share = cross_entropy(logits[:-1], ids[1:], reduction="sum") / max(counted, 1)
        share.backward()
        expected += share.item()
    differences = {}
    others = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        other = others.pop(name)
        wanted = torch.zeros_like(other) if other.grad is None else other.grad
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        differences[name] = relative_difference(found, wanted)
    worst = max(differences, key=differences.__getitem__)
    return Verification(
        loss_relative_difference=relative_difference(torch.tensor(loss).double(), torch.tensor(expected).double()),
        max_gradient_relative_difference=differences[worst],
        worst_gradient=worst,
        gradients_compared=len(differences),
        degrees=sorted({len(group.ranks) for batch in plan.micro_batches for group in batch.groups}),
    )


def relative_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Infinite where the reference is zero and the value is not; NaN counts as infinite, so that no comparison passes by it."""
    difference, norm = (found.double() - wanted.double()).norm().item(), wanted.double().norm().item()
    ratio = difference / norm if norm > 0 else (0.0 if difference == 0 else float("inf"))
    return ratio if ratio == ratio else float("inf")
