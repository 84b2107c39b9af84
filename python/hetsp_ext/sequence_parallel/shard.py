"""This rank's part of a step: its tokens with their positions and labels, and the layout that says how it attends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from .._native import core
from ..errors import InvalidArgument
from ..planner import Cluster, Plan
from .agreement import compare_digests, group_rank_and_size
from .layout import ShardLayout, StepProof

IGNORED = -100  # label of a position that has none: what torch's cross entropy ignores


class Documents(Protocol):
    """Anything that can read a run of tokens of the step's sequences."""

    def read(self, sequence: int, begin: int, end: int, fields: Sequence[str]) -> dict[str, torch.Tensor]:
        """Tokens [begin, end) of a sequence, as one tensor [end - begin] for each of `fields`."""


@dataclass(frozen=True)
class Shard:
    """One micro-batch on one rank. All tensors are int64 [layout.tokens].

    Attributes:
        tokens: token ids, in the order of layout.pieces.
        position_ids: position of each token in its document.
        labels: the document's next token, shifted before the document was cut; -100 at a document's end.
        layout: what sequence_parallel_attention takes.
    """

    tokens: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    layout: ShardLayout


class _TensorDocuments:
    """Documents that are tensors in memory."""

    def __init__(self, tensors: Sequence[torch.Tensor], plan: Plan) -> None:
        given = [tensor.numel() for tensor in tensors]
        if given != plan.lengths:
            raise InvalidArgument(f"documents have {given} tokens; the plan was made for {plan.lengths}")
        self._tensors = tensors

    def read(self, sequence: int, begin: int, end: int, fields: Sequence[str]) -> dict[str, torch.Tensor]:
        return {field: self._tensors[sequence][begin:end] for field in fields}


def _read_piece(documents: Documents, piece: tuple[int, int, int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, labels) of a piece; one token more than the piece is read, because a label is the next token."""
    sequence, begin, end = piece
    stop = min(end + 1, length)
    tokens = documents.read(sequence, begin, stop, ("tokens",))["tokens"].to(torch.int64)
    if tokens.shape != (stop - begin,):
        raise InvalidArgument(f"sequence {sequence}: read({begin}, {stop}) gave shape {tuple(tokens.shape)}")
    labels = torch.full((end - begin,), IGNORED, dtype=torch.int64)
    labels[: stop - begin - 1] = tokens[1:]
    return tokens[: end - begin], labels


def _read_shard(documents: Documents, layout: ShardLayout, lengths: Sequence[int], device: torch.device | None) -> Shard:
    empty = torch.empty(0, dtype=torch.int64)
    tokens, labels, positions = [empty], [empty], [empty]
    for piece in layout.pieces:
        read = _read_piece(documents, piece, lengths[piece[0]])
        tokens.append(read[0])
        labels.append(read[1])
        positions.append(torch.arange(piece[1], piece[2]))
    return Shard(torch.cat(tokens).to(device), torch.cat(positions).to(device), torch.cat(labels).to(device), layout)


def shard(
    plan: Plan,
    documents: Documents | Sequence[torch.Tensor],
    group: dist.ProcessGroup | None = None,
    *,
    device: torch.device | str | None = None,
    trace: bool = False,
    alignment: int = 1,
) -> list[Shard]:
    """Reads this rank's part of a step: one Shard per micro-batch of the plan, some perhaps without tokens.

    Before anything is read, all ranks compare the plan's digest, and each proves that the schedules of all ranks attend to
    every visible pair once and cannot deadlock.

    Args:
        plan: the step's plan, the same on every rank (`hetsp.agree`).
        documents: one int64 tensor [tokens] per sequence of the plan, or an object with `read` (see Documents); only this
            rank's own ranges are read, and one token more for a label.
        group: the process group whose ranks the plan counts; None: the default group.
        device: where the tensors go; None: where they were read.
        trace: keep `layout.events`.
        alignment: tokens; cuts inside a sequence are multiples of it.

    Raises:
        PlanMismatch: a rank holds another plan.
        InvalidArgument: lengths of documents and plan differ, or the plan is for another number of ranks.
    """
    rank, _ = group_rank_and_size(group)
    compare_digests(plan, group)
    plan.check(Cluster(plan.ranks, 2**40))  # memory was the planner's business
    source: Any = documents if hasattr(documents, "read") else _TensorDocuments(documents, plan)
    proof = StepProof([core.make_layout(plan, index, alignment) for index in range(len(plan.micro_batches))])
    proof.require((-1, 0))
    place = torch.device(device) if device is not None else None
    layouts = [ShardLayout(proof, index, rank, group, trace=trace) for index in range(len(proof.layouts))]
    return [_read_shard(source, layout, plan.lengths, place) for layout in layouts]
