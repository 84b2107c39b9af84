"""One plan on every rank: rank 0's is broadcast, and all compare digests before the first message of a step."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist

from ..errors import InvalidArgument, PlanMismatch
from ..planner import Plan


def group_rank_and_size(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """(rank, size) in `group`; (0, 1) where torch.distributed is not initialised."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def _device(group: dist.ProcessGroup | None) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(group) == "nccl" else torch.device("cpu")


def compare_digests(plan: Plan, group: dist.ProcessGroup | None) -> None:
    """Raises PlanMismatch on every rank, naming the ranks, unless all hold the plan of rank 0."""
    rank, size = group_rank_and_size(group)
    if plan.ranks != size:
        raise InvalidArgument(f"the plan is for {plan.ranks} ranks; the group has {size}")
    if size == 1:
        return
    own = int(plan.digest, 16)
    halves = torch.tensor([own >> 32, own & 0xFFFFFFFF], dtype=torch.int64, device=_device(group))
    gathered = [torch.empty_like(halves) for _ in range(size)]
    dist.all_gather(gathered, halves, group=group)
    digests = [(int(pair[0]) << 32) | int(pair[1]) for pair in gathered]
    others = [other for other, digest in enumerate(digests) if digest != digests[0]]
    if others:
        names = ", ".join(f"rank {other} has {digests[other]:016x}" for other in others)
        raise PlanMismatch(f"ranks disagree on the plan: rank 0 has {digests[0]:016x}, {names}; this is rank {rank}")


def agree(plan: Plan | None, group: dist.ProcessGroup | None = None) -> Plan:
    """Returns one plan on all ranks: rank 0's, or each rank's own where it passes one, after comparing their digests.

    Args:
        plan: the plan on rank 0; None, or the plan this rank believes in, on the others.
        group: the process group whose ranks the plan counts; None: the default group.

    Raises:
        PlanMismatch: on every rank, if a rank passed a plan that is not rank 0's.
        InvalidArgument: rank 0 passed None, or the plan is for another number of ranks.
    """
    rank, size = group_rank_and_size(group)
    if size > 1:
        message: list[Any] = [json.dumps(plan.to_dict()) if rank == 0 and plan is not None else None]
        source = 0 if group is None else dist.get_global_rank(group, 0)
        dist.broadcast_object_list(message, src=source, group=group, device=_device(group))
        if plan is None and message[0] is not None:
            plan = Plan.from_dict(json.loads(message[0]))
    if plan is None:
        raise InvalidArgument("rank 0 has no plan to agree on")
    compare_digests(plan, group)
    return plan
