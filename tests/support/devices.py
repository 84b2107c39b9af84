"""Which devices tests run on, and why not on a GPU.

A test that runs on several names no device: tensors are made on the default one, which a fixture sets. What differs by device
asks `torch.get_default_device()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from hetsp_ext.kernels import kernels_of, set_cuda_kernels

FAMILIES = ["scalar", "mma", "hopper"]


def why_no_cuda() -> str:
    compiled, torch_has_cuda, devices = torch.ops.hetsp.cuda_info()
    return f"no CUDA device: kernels compiled: {bool(compiled)}, torch has CUDA: {bool(torch_has_cuda)}, devices: {devices}"


def cuda_runs() -> bool:
    return all(torch.ops.hetsp.cuda_info()) and torch.cuda.is_available()


def cuda_places() -> list[str]:
    """What the GPU here can do, for tests that run on all of it: "cuda", where each call has the best kernels that serve it,
    and a name for every simpler family of kernels, with no call beyond it."""
    if not cuda_runs():
        return []
    best = kernels_of(*torch.cuda.get_device_capability())
    return ["cuda", *(f"cuda_{name}" for name in reversed(FAMILIES[: FAMILIES.index(best)]))]


def prefer_kernels(place: str) -> None:
    """Bounds the kernels as a name of cuda_places says; any other name leaves them free."""
    _, _, family = place.partition("cuda_")
    set_cuda_kernels(family or None)


needs_cuda = pytest.mark.skipif(not cuda_runs(), reason=why_no_cuda())
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=needs_cuda)]


@contextmanager
def default_device(device: str) -> Iterator[None]:
    """Tensors of this thread are made on `device`."""
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


def on_cuda() -> bool:
    return torch.get_default_device().type == "cuda"


def only_on_cpu(why: str) -> None:
    """Skips the test where it runs on a GPU."""
    if on_cuda():
        pytest.skip(f"on the CPU alone: {why}")


CONTENTS = "what a tensor on a GPU holds is not checked: that would wait for the device"


def equal_sums(x: Tensor, y: Tensor) -> bool:
    """Whether gradients of the same terms agree: bitwise, but for 16-bit types on a GPU.

    There a short document shares its tile with others, and its place in the tile decides in which order a matrix instruction
    adds: float32 sums differ in their last bits, and some 16-bit results by a unit.
    """
    if x.is_cuda and x.dtype in (torch.bfloat16, torch.float16):
        unit = torch.finfo(x.dtype).eps
        x, y = x.double(), y.double()
        return bool((x - y).norm() <= unit / 4 * y.norm())
    return torch.equal(x, y)
