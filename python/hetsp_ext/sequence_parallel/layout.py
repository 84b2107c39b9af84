"""A layout bound to one rank of a group: what the attention of a micro-batch needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist

from .._native import core
from .channel import Channel
from .trace import Trace, TraceEvent

Window = tuple[int, int]  # tokens of distance visible to the left and right, -1: unbounded


class StepProof:
    """The layouts of a whole step, and the windows for which its schedules are proven right.

    Every rank proves the schedules of all ranks, once per window and before its first message.
    """

    def __init__(self, layouts: Sequence[Any]) -> None:
        self.layouts = list(layouts)
        self._proven: set[Window] = set()

    def require(self, window: Window) -> None:
        if window not in self._proven:
            core.check_step(self.layouts, *window)
            self._proven.add(window)


@dataclass(frozen=True)
class PreparedStep:
    """A step of the native schedule with its segments as a tensor; read once, walked in every layer."""

    kind: Any
    field: Any
    ring: int
    part: int
    hop: int
    peer: int
    rows: int
    batch: int
    after: tuple[int, ...]
    segments: torch.Tensor  # int64 [segments, 8], on the device of the tensors

    @classmethod
    def of(cls, step: Any, device: torch.device) -> PreparedStep:
        segments = torch.tensor(step.segments, dtype=torch.int64).reshape(-1, 8).to(device)
        return cls(
            step.kind, step.field, step.ring, step.part, step.hop, step.peer, step.rows, step.batch, tuple(step.after), segments
        )


@dataclass(frozen=True)
class RingRows:
    """The rows of one ring on this rank: packed rows [begin, end)."""

    ring: int
    size: int
    begin: int
    end: int


class ShardLayout:
    """What this rank holds of one micro-batch, and how it attends to the rest.

    Attributes:
        rank: this rank in the group.
        pieces: (sequence, begin, end) of each run of tokens held here, in row order; a row of q, k, v is a token.
        tokens: rows held here.
        native: the layout of all ranks (hetsp_ext._core.Layout).
    """

    def __init__(
        self, proof: StepProof, micro_batch: int, rank: int, group: dist.ProcessGroup | None, *, trace: bool = False
    ) -> None:
        self.native = proof.layouts[micro_batch]
        self.micro_batch = micro_batch
        self.rank = rank
        self.channel = Channel(group)
        self.trace = Trace(keep=trace)
        self._proof = proof
        self._prepared: dict[tuple[Window, torch.device, bool], list[PreparedStep]] = {}

    def __repr__(self) -> str:
        return f"ShardLayout(rank={self.rank}, micro_batch={self.micro_batch}, tokens={self.tokens}, pieces={len(self.pieces)})"

    @cached_property
    def pieces(self) -> list[tuple[int, int, int]]:
        return self.native.pieces_of(self.rank)

    @cached_property
    def tokens(self) -> int:
        return self.native.tokens_of(self.rank)

    @cached_property
    def rings(self) -> list[RingRows]:
        rows, begin = [], 0
        for ring in self.native.rings_of(self.rank):
            end = begin + self.native.part_tokens(ring, self.native.part_of(ring, self.rank))
            rows.append(RingRows(ring, len(self.native.rings[ring].ranks), begin, end))
            begin = end
        return rows

    @cached_property
    def pairs(self) -> int:
        """Visible (query, key) pairs that this rank attends to in one causal forward, per head."""
        return core.make_schedule(self.native, self.rank).visible_pairs

    @property
    def events(self) -> list[TraceEvent]:
        """What this rank did in attention so far, if the shard was made with trace=True."""
        return self.trace.events

    @property
    def waited(self) -> float:
        """Seconds spent waiting for messages of peers so far."""
        return self.trace.waited

    def steps(self, window: Window, device: torch.device, *, backward: bool) -> list[PreparedStep]:
        """This rank's steps for a window, proven right; kept for the next layer."""
        key = (window, device, backward)
        if key not in self._prepared:
            self._proof.require(window)
            schedule = core.make_schedule(self.native, self.rank, *window)
            steps = schedule.backward if backward else schedule.forward
            self._prepared[key] = [PreparedStep.of(step, device) for step in steps]
        return self._prepared[key]
