"""One tensor of the state as this rank holds it: which box of which tensor, in which memory, and whether it stands still.

lazy      read where it is, in the background: nothing writes to it before the next optimizer step
staged    stands still as well, but lies where the engine cannot read it (foreign devices, short strided runs): copied in save()
volatile  may change at any moment (buffers, step counts, positions, generators): copied in save(), on every rank its own; on a
          GPU that copy is queued by save() and made by the device
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InvalidArgument
from . import _devices
from ._boxes import contiguous_strides, run_elements, runs
from ._dtypes import dtype_name

LAZY, STAGED, VOLATILE = "lazy", "staged", "volatile"

# A tensor of an object that is neither a module nor an optimizer is copied at once up to this size: a data loader's position is
# as small, and nobody promises that it waits for a step. Larger ones are read later, under the guard.
MOST_VOLATILE_BYTES = 1 << 20
# A strided tensor is read in place if its runs are at least this long; shorter ones cost the engine more than a copy.
SHORTEST_RUN = 1 << 12  # bytes
MOST_RUNS = 1 << 12  # of one tensor


@dataclass(slots=True)
class Item:
    """See the module. `holders`: ranks with this same box; `plain`: not a DTensor, so that the holders must be agreed on."""

    name: str
    leaf: int
    local: torch.Tensor
    dtype: str
    shape: tuple[int, ...]  # of the whole tensor
    offsets: tuple[int, ...]  # of the box
    kind: str
    holders: tuple[int, ...]
    plain: bool
    private: bool = False
    group: int = -1
    rows: tuple[int, int] | None = None  # of the box, that this rank writes; None: nothing

    @property
    def written(self) -> torch.Tensor:
        """The part of the box that this rank writes."""
        return self.written_of(self.local)

    def written_of(self, local: torch.Tensor) -> torch.Tensor:
        """The same part of another tensor of the box's shape."""
        assert self.rows is not None
        if not local.dim() or self.rows == (0, local.shape[0]):
            return local.detach()
        return local.detach().narrow(0, self.rows[0], self.rows[1] - self.rows[0])

    @property
    def written_offsets(self) -> tuple[int, ...]:
        """Where that part begins in the whole tensor."""
        if not self.offsets or self.rows is None:
            return self.offsets
        return (self.offsets[0] + self.rows[0], *self.offsets[1:])


def dtensor_class() -> Any:
    """torch's DTensor where anybody has imported it, else a class without instances."""
    module = sys.modules.get("torch.distributed.tensor")
    return module.DTensor if module is not None else _Nothing


class _Nothing:
    pass


def box_of(tensor: Any, name: str, rank_of: Callable[[int], int]) -> tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]:
    """(local tensor, its offsets, ranks that hold the same box) of a DTensor."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, local = tensor.device_mesh, tensor._local_tensor
    if any(placement.is_partial() for placement in tensor.placements):
        raise InvalidArgument(f"tensor {name!r} has placements {tensor.placements}; a partial sum has no value to save")
    coordinate = mesh.get_coordinate()
    if coordinate is None:  # this rank is not in the mesh
        return local, (0,) * tensor.dim(), ()
    shape, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, tensor.placements)
    if tuple(shape) != tuple(local.shape):
        raise InvalidArgument(
            f"tensor {name!r} has a local part of shape {list(local.shape)}; placements {tensor.placements} of "
            f"{list(tensor.shape)} give {list(shape)} on this rank"
        )
    index = tuple(
        slice(None) if placement.is_replicate() else at for placement, at in zip(tensor.placements, coordinate, strict=True)
    )
    return local, tuple(offsets), tuple(sorted(rank_of(rank) for rank in mesh.mesh[index].flatten().tolist()))


def make_item(
    name: str, leaf: int, tensor: torch.Tensor, *, parameter: bool, kind: str, rank: int, rank_of: Callable[[int], int]
) -> Item:
    """The item of a leaf. `kind` is what its object is: "model", "optimizer" or "object"; `parameter`: not a buffer."""
    plain = not isinstance(tensor, dtensor_class())
    local: torch.Tensor = tensor
    offsets: tuple[int, ...] = (0,) * tensor.dim()
    holders: tuple[int, ...] = (rank,)
    if not plain:
        local, offsets, holders = box_of(tensor, name, rank_of)
    _check(name, local)
    volatile = (
        local.numel() <= 1 or (kind == "model" and not parameter) or (kind == "object" and local.nbytes <= MOST_VOLATILE_BYTES)
    )
    return Item(
        name,
        leaf,
        local,
        dtype_name(local.dtype, name),
        tuple(tensor.shape),
        offsets,
        VOLATILE if volatile else LAZY if readable_in_place(local) else STAGED,
        holders,
        plain,
    )


def _check(name: str, tensor: torch.Tensor) -> None:
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        raise InvalidArgument(
            f"tensor {name!r} is {tensor.dtype}, {tensor.layout} on {tensor.device}; allowed: strided, not quantized, not meta"
        )
    if torch.utils._python_dispatch.is_traceable_wrapper_subclass(tensor):
        raise InvalidArgument(
            f"tensor {name!r} is a {type(tensor).__qualname__}, whose bytes lie in other tensors; allowed: plain ones, DTensor"
        )


def readable_in_place(tensor: torch.Tensor) -> bool:
    """Whether the engine can read the tensor where it lies."""
    if _devices.number_of(tensor) is None or tensor.is_conj() or tensor.is_neg():
        return False
    if tensor.is_contiguous():
        return True
    elements = run_elements(tensor.shape, contiguous_strides(tensor.shape), tensor.stride())
    return elements * tensor.itemsize >= SHORTEST_RUN and tensor.numel() <= MOST_RUNS * elements


def spans(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """(address, bytes) of the runs of a tensor in row-major order; none where it has no elements."""
    if not tensor.numel():
        return []
    if tensor.is_contiguous():
        return [(tensor.data_ptr(), tensor.nbytes)]
    found = runs(tensor.shape, contiguous_strides(tensor.shape), tensor.stride())
    base, item = tensor.data_ptr(), tensor.itemsize
    return [(base + int(at) * item, found.elements * item) for at in found.destination.tolist()]


def tensors_in(value: Any) -> Sequence[torch.Tensor]:
    """The tensors of an optimizer's state of one parameter, however deep."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []
