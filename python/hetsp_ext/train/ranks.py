"""The ranks of a run: who this process is, what it computes on, and how it notices that another one is gone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ..doctor import cores
from ..errors import InvalidArgument, PeerLost
from .options import Options

__all__ = ["Ranks", "is_rank", "joined", "naming_lost_peers", "threads_per_rank"]


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of the run."""

    rank: int
    size: int
    device: torch.device


def is_rank() -> bool:
    """Whether this process was started as one of several, by `hetsp train` itself or by a user's torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def threads_per_rank(ranks: int) -> int:
    """Threads for each of `ranks` ranks on this machine, so that together they do not exceed its cores."""
    return max(1, cores() // ranks)


def choose_device(options: Options, local_rank: int, local_ranks: int) -> torch.device:
    """cuda where it can work, and with --device cuda the reason where it cannot."""
    compiled, torch_has_cuda, devices = torch.ops.hetsp.cuda_info()
    reason = None
    if not torch_has_cuda:
        reason = f"torch {torch.__version__} is a build without CUDA"
    elif not compiled:
        reason = "hetsp_ext was built without CUDA kernels"
    elif devices < local_ranks:
        reason = f"there are {devices} GPUs for {local_ranks} ranks on this machine"
    elif not dist.is_nccl_available():
        reason = f"torch {torch.__version__} is a build without NCCL"
    if options.device == "cuda" and reason is not None:
        raise InvalidArgument(f"--device cuda: {reason}")
    return torch.device("cpu") if options.device == "cpu" or reason is not None else torch.device("cuda", local_rank)


def choose_backend(options: Options, device: torch.device) -> str:
    """What --backend names; auto is NCCL with GPUs and Gloo on CPUs. Raises where it cannot serve the device."""
    if options.backend == "auto":
        return "nccl" if device.type == "cuda" else "gloo"
    if options.backend == "nccl" and device.type != "cuda":
        raise InvalidArgument(
            "--backend is nccl, which carries CUDA tensors only, and the run computes on cpu; gloo and hetsp do"
        )
    return options.backend


@contextmanager
def joined(options: Options) -> Iterator[Ranks]:
    """Joins the process group of the run and leaves it; every wait has a limit."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if options.ranks is not None and options.ranks != size:
        raise InvalidArgument(f"--ranks is {options.ranks}, but torchrun started {size} processes; leave --ranks out")
    local_rank, local_ranks = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    device = choose_device(options, local_rank, local_ranks)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(threads_per_rank(local_ranks))
    backend = choose_backend(options, device)
    with naming_lost_peers():
        dist.init_process_group(
            backend, timeout=timedelta(seconds=options.timeout), device_id=device if backend == "nccl" else None
        )
    try:
        yield Ranks(rank, size, device)
    finally:
        dist.destroy_process_group()


@contextmanager
def naming_lost_peers() -> Iterator[None]:
    """Turns a collective's failure into PeerLost. A collective does not know which peer failed; the launcher does."""
    try:
        yield
    except PeerLost:  # backend hetsp knows, and says who
        raise
    except dist.DistError as error:
        raise PeerLost(f"a collective failed: {str(error).splitlines()[0]}") from error
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        if any(sign in first.lower() for sign in ("gloo", "nccl", "connection", "timed out")):
            raise PeerLost(f"another rank was lost: {first}") from error
        raise
