"""The instruction set of the CPU kernels: chosen by the machine, or forced to compare and to test.

The environment variable HETSP_CPU_CAPABILITY forces one from the import on, in this process and in those it starts.
"""

import os

from ._native import core, ops
from .errors import InvalidArgument

__all__ = ["VARIABLE", "cpu_capabilities", "cpu_capability", "set_cpu_capability"]

VARIABLE = "HETSP_CPU_CAPABILITY"


def cpu_capabilities() -> list[str]:
    """Names of what this machine can run, slowest first: of "portable", "avx2", "avx512", "avx512_bf16", "amx".

    The last of them is in use unless another is forced. "amx" is there where the kernel gives this process the registers, too.
    """
    return list(core.cpu_capabilities())


def cpu_capability() -> str:
    """The instruction set that kernels run with from the next call on."""
    return str(core.cpu_capability())


def set_cpu_capability(name: str | None) -> None:
    """Runs attention, streamed copies and XXH3 checksums with the instruction set `name`, or with the best again (None).

    For the whole process, from the next kernel on; a call that other threads have under way ends as it began. Results of two
    sets may differ in their last bits. Raises InvalidArgument, and changes nothing, for a name that this machine lacks; for
    "amx" it says whether the CPU has no AMX, or the kernel gives no tile registers (asked for here, or by the first kernel).
    """
    if name is not None and not isinstance(name, str):
        raise InvalidArgument(f"CPU capability is {name!r}, must be None or one of {', '.join(cpu_capabilities())}")
    core.force_cpu_capability(name)  # checks the name
    ops.force_cpu_capability(name)  # the ops live in a shared object with a core of its own


def apply_environment() -> None:
    """Forces what the environment names, if it names something; called once, by the import of the package."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        return
    try:
        set_cpu_capability(name)
    except InvalidArgument as error:
        raise InvalidArgument(f"{VARIABLE}: {error}") from None


apply_environment()
