"""One loss, and so one gradient, whatever the plan.

With documents d of n_d tokens, labels shifted inside each document, and the count of label positions C = sum_d (n_d - 1),

    loss = (1 / C) sum_d sum_t CE(d, t).

C depends on the lengths alone, so it is known before the first backward, and each rank's contribution is a plain sum over the
label positions that it holds. Gradients are linear: summed over micro-batches and ranks they are the gradient of `loss`, for
every assignment of tokens to ranks. An average of per-rank averages has no such property: it weights a token by how many others
share its rank.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .errors import InvalidArgument
from .planner import Plan

__all__ = ["chunked_cross_entropy", "token_mean"]

GRADIENTS = ("sum", "mean")


def token_mean(
    loss_sum: Tensor,
    plan: Plan,
    group: dist.ProcessGroup | None = None,
    *,
    labels_counted: int | None = None,
    gradients: str = "sum",
) -> Tensor:
    """This rank's and micro-batch's share of the mean loss over all label positions of the step.

    Summed over all ranks and micro-batches the shares are the loss; so are the gradients, which must be summed over ranks.

    Args:
        loss_sum: scalar, the sum of the losses of the label positions in this micro-batch on this rank.
        plan: the step's plan; its lengths give the count, sum of (tokens - 1) over the documents.
        group: the plan's ranks, default the whole world; only its size is used, and only with gradients="mean".
        labels_counted: label positions of the whole step, where the labels leave out more than each document's last position.
        gradients: "sum" where the gradients are summed over ranks, "mean" under a wrapper that averages them (DDP, FSDP): the
            share is then multiplied by the group's size, which the wrapper divides by.

    Raises:
        InvalidArgument: loss_sum is no scalar, a negative count, or an unknown value of `gradients`.
    """
    if loss_sum.dim() != 0:
        raise InvalidArgument(f"loss_sum has shape {tuple(loss_sum.shape)}; a scalar is needed (a sum, not per-token losses)")
    if gradients not in GRADIENTS:
        raise InvalidArgument(f"gradients is {gradients!r}; allowed are 'sum' and 'mean'")
    counted = sum(max(sequence.tokens - 1, 0) for sequence in plan.sequences) if labels_counted is None else labels_counted
    if counted < 0:
        raise InvalidArgument(f"labels_counted is {counted}; at least 0 is needed")
    ranks = dist.get_world_size(group) if gradients == "mean" and dist.is_initialized() else 1
    # A step of one-token documents has no labels: loss 0 and gradients 0, not 0 / 0.
    return loss_sum * (ranks / max(counted, 1))


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    chunk_tokens: int = 1024,
    bias: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Sum of the cross entropies of softmax(hidden @ weight.T + bias), without ever holding the logits of all tokens.

    The logits live for chunk_tokens tokens at a time: chunk_tokens x vocabulary float32 instead of tokens x vocabulary. The
    gradients are computed in the same pass (two products more per chunk), so nothing is recomputed in the backward.

    Args:
        hidden: [..., features], float. No tokens at all are legal: the result is 0 and still part of the graph.
        weight: [vocabulary, features], the LM head, same dtype as hidden (under autocast both are cast as a linear would).
        labels: [...] int64, class of each token or ignore_index.
        chunk_tokens: tokens whose logits exist at one time.
        bias: [vocabulary] or None.
        ignore_index: label of a token that does not count.

    Returns:
        Scalar, float32 (float64 for float64 inputs).

    Raises:
        InvalidArgument: shapes or dtypes that do not match; on the CPU also a label outside the vocabulary.
    """
    _check(hidden, weight, labels, chunk_tokens, bias)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    elif weight.dtype != hidden.dtype or (bias is not None and bias.dtype != hidden.dtype):
        raise InvalidArgument(
            f"hidden is {hidden.dtype} but weight is {weight.dtype}{'' if bias is None else f', bias {bias.dtype}'}"
        )
    flat = labels.reshape(-1)
    if device == "cpu":  # on a GPU the kernel's own assertion says it, without a synchronisation here
        wrong = flat[(flat != ignore_index) & ((flat < 0) | (flat >= weight.shape[0]))]
        if wrong.numel():
            raise InvalidArgument(
                f"label {wrong[0].item()} is outside the vocabulary [0, {weight.shape[0]}) and not ignore_index {ignore_index}"
            )
    return _ChunkedCrossEntropy.apply(hidden.reshape(-1, hidden.shape[-1]), weight, bias, flat, chunk_tokens, ignore_index)


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, chunk_tokens: int, bias: Tensor | None) -> None:
    if hidden.dim() < 1 or weight.dim() != 2 or hidden.shape[-1] != weight.shape[1]:
        raise InvalidArgument(
            f"hidden {tuple(hidden.shape)} does not fit weight {tuple(weight.shape)}: need [..., n] and [vocabulary, n]"
        )
    if not hidden.is_floating_point():
        raise InvalidArgument(f"hidden is {hidden.dtype}; a floating-point dtype is needed")
    if labels.dtype != torch.int64 or labels.shape != hidden.shape[:-1]:
        raise InvalidArgument(f"labels are {labels.dtype} {tuple(labels.shape)}; int64 {tuple(hidden.shape[:-1])} is needed")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InvalidArgument(f"bias has shape {tuple(bias.shape)}; ({weight.shape[0]},) is needed")
    if chunk_tokens < 1:
        raise InvalidArgument(f"chunk_tokens is {chunk_tokens}; at least 1 is needed")


class _ChunkedCrossEntropy(torch.autograd.Function):
    """d loss / d logits = softmax(logits) - onehot(label), times the incoming gradient, a scalar: it factors out of every
    product, so hidden's, weight's and bias's gradients are formed chunk by chunk in the forward and only scaled later."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        chunk_tokens: int,
        ignore_index: int,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]  # type: ignore[attr-defined]
        loss = hidden.new_zeros((), dtype=wide)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if needs_bias and bias is not None else None
        with torch.autocast(hidden.device.type, enabled=False):
            for begin in range(0, hidden.shape[0], chunk_tokens):
                rows = slice(begin, begin + chunk_tokens)
                part, label = hidden[rows], labels[rows]
                counted = label != ignore_index
                logits = torch.nn.functional.linear(part, weight, bias).to(wide)
                logits -= logits.amax(1, keepdim=True)
                target = torch.where(counted, label, 0).unsqueeze(1)
                shifted = logits.gather(1, target)
                of_target = shifted.exp()
                # Without the target, so that neither 1 - softmax nor the loss of a sure prediction cancels.
                of_others = logits.exp_().scatter_(1, target, 0.0).sum(1, keepdim=True)
                total = of_others + of_target
                losses = torch.where(of_target > of_others, torch.log1p(of_others / of_target), total.log() - shifted)
                loss += torch.where(counted, losses.squeeze(1), 0).sum()
                if not (needs_hidden or needs_weight or needs_bias):
                    continue
                grad = logits.scatter_(1, target, -of_others).div_(total)  # in place: the logits are not needed again
                grad.masked_fill_(~counted.unsqueeze(1), 0)
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
                narrow = grad.to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(narrow, weight, out=grad_hidden[rows])
                if grad_weight is not None:
                    grad_weight += narrow.t() @ part
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)  # type: ignore[attr-defined]
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)  # type: ignore[arg-type]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # type: ignore[attr-defined]
        dtypes = ctx.dtypes  # type: ignore[attr-defined]
        return *(None if g is None else (g * grad_loss).to(d) for g, d in zip(saved, dtypes, strict=True)), None, None, None
