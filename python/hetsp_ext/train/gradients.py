"""The one exchange of a step besides attention: gradients summed over all ranks."""

from collections.abc import Iterable

import torch
import torch.distributed as dist

__all__ = ["sum_gradients"]


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces every parameter's gradient by its sum over the ranks; a rank that has none adds zero and receives the sum.

    One message of all gradients, in float32 (float64 for float64), so that 16-bit gradients are not rounded once per rank.
    Every rank must hold the same trainable parameters in the same order.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not parameters:
        return
    wide = torch.float32
    for parameter in parameters:
        wide = torch.promote_types(wide, parameter.dtype)
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=wide, device=parameters[0].device)
    parts = flat.split([parameter.numel() for parameter in parameters])
    for part, parameter in zip(parts, parameters, strict=True):
        if parameter.grad is not None:
            part.copy_(parameter.grad.flatten())
    dist.all_reduce(flat)
    for part, parameter in zip(parts, parameters, strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)
