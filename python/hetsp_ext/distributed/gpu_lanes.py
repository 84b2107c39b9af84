"""Lanes for the memory of GPUs: whether a group has them, by which NCCL, and in words why not."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HetspError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroupNCCL, Store

__all__ = ["LIBRARY", "NOT_ASKED", "absent", "bundled", "chosen", "collectives", "found", "too_few_queues"]

LIBRARY = "HETSP_NCCL_LIBRARY"
QUEUES = "CUDA_DEVICE_MAX_CONNECTIONS"
NOT_ASKED = "not asked for: the option gpu_lanes (or HETSP_GPU_LANES=1) turns them on; tensors of GPUs go through host memory"


def bundled() -> str:
    """libnccl of the package nvidia.nccl, as torch's wheels bring it; "" where it is not installed."""
    try:
        spec = importlib.util.find_spec("nvidia.nccl")
    except ImportError:  # no package nvidia at all
        spec = None
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        library = Path(place, "lib", "libnccl.so.2")
        if library.exists():
            return str(library)
    return ""


def found(native: Any) -> dict[str, str]:
    """What the extension finds: `version` and `path` of NCCL if any, `why` no lanes can be had with it, else ""."""
    return dict(native.nccl(os.environ.get(LIBRARY, ""), bundled()))


def absent(wanted: bool, native: Any) -> str:
    """Why this rank cannot have lanes for its GPU; "" if it can."""
    import torch

    if not wanted:
        return NOT_ASKED
    seen = "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU"
    return "; ".join(reason for reason in (seen, found(native)["why"]) if reason)


def too_few_queues(lanes: int) -> str:
    """Why so many lanes could wait for each other on their way to the GPU; "" if they cannot.

    Streams share the queues that lead to a GPU: CUDA makes 8, or what CUDA_DEVICE_MAX_CONNECTIONS says, at most 32. What stands
    behind a kernel that waits for another rank in its queue waits as well.
    """
    given = os.environ.get(QUEUES, "")
    here = min(int(given), 32) if given.isdecimal() and int(given) > 0 else 8
    needed = 2 * lanes + 2
    if needed <= here:
        return ""
    if needed > 32:
        return f"{lanes} lanes need {needed} queues to the GPU, and CUDA has at most 32"
    return (
        f"{lanes} lanes need {needed} queues to the GPU, and {QUEUES} is {given or '8 by default'}: set it before CUDA is used"
    )


def chosen(reasons: Sequence[str]) -> str:
    """Why a group has none: the first reason of a rank, with its number; "" where every rank can."""
    if all(reason == NOT_ASKED for reason in reasons):
        return NOT_ASKED
    return next((f"rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason), "")


def collectives(store: "Store", rank: int, size: int, timeout: Any) -> "ProcessGroupNCCL | None":
    """torch's own NCCL for the collectives that routing cannot help; None where this torch has it not."""
    import torch.distributed as dist

    if not dist.is_nccl_available():
        return None
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    try:
        return dist.ProcessGroupNCCL(dist.PrefixStore("gpu", store), rank, size, options)
    except RuntimeError as error:
        raise HetspError(f"backend hetsp: torch's NCCL cannot be had for its collectives: {error}") from error
