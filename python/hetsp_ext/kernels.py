"""The family of CUDA attention kernels: chosen by call and device, or bounded to compare and to test.

"scalar" takes every call and is slow; "mma" runs bfloat16 and float16 on the tensor cores of any GPU from Ampere on; "hopper",
on Hopper alone, what its copy engine can read. A call takes the best that can serve it. The environment variable
HETSP_CUDA_KERNELS bounds the choice from the import on, in this process and in those it starts.
"""

import os

from ._native import ops
from .attention._call import call
from .errors import InvalidArgument

__all__ = ["VARIABLE", "cuda_kernels", "set_cuda_kernels"]

VARIABLE = "HETSP_CUDA_KERNELS"
FAMILIES = ["scalar", "mma", "hopper"]  # each serves more devices and calls than the next
BEST = FAMILIES[-1]


def cuda_kernels() -> str:
    """The best family that calls may take: "hopper" unless it is bounded; what a device offers is another matter."""
    return str(ops.cuda_kernels())


def kernels_of(major: int, minor: int) -> str:
    """The best family that a device of this compute capability runs."""
    return str(ops.cuda_kernels_of(10 * major + minor))


def set_cuda_kernels(name: str | None, only: bool = False) -> None:
    """Lets attention on CUDA take no family beyond `name`, of "scalar", "mma", "hopper", or any again (None).

    For the whole process, from the next call on. With `only` a call that `name` does not serve raises InvalidArgument with the
    reason, where otherwise it would go to a simpler family. Raises InvalidArgument, and changes nothing, for another name.
    """
    if name is not None and not isinstance(name, str):
        raise InvalidArgument(f"CUDA kernels are {name!r}, must be None, scalar, mma or hopper")
    call(ops.set_cuda_kernels, name, only)


def apply_environment() -> None:
    """Bounds the choice as the environment says, if it says something; called once, by the import of the package."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        return
    try:
        set_cuda_kernels(name)
    except InvalidArgument as error:
        raise InvalidArgument(f"{VARIABLE}: {error}") from None


apply_environment()
