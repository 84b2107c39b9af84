"""Walks a schedule: posts its messages and runs its attention, forward and backward.

The steps say what to do and in which order; this file only knows how a step is done with torch tensors. A ring's keys and
values travel as one tensor [rows, kv heads, head_dim + head_dim_v], its gradients as the same shape in the accumulate type
(float64 for float64, else float32), so that no hop rounds.
"""

from __future__ import annotations

import torch

from .._native import core
from .channel import Message, Posted
from .layout import PreparedStep, RingRows, ShardLayout, Window

ops = torch.ops.hetsp
ATTEND, SEND, RECV, ACCUMULATE = (core.StepKind[name] for name in ("attend", "send", "recv", "accumulate"))
KEYS, GRADIENTS = core.Field.key_value, core.Field.key_value_gradient


class Walker:
    """One pass over one phase's steps; subclasses say what attend and accumulate mean."""

    phase = ""

    def __init__(
        self,
        layout: ShardLayout,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        window: Window,
        scale: float,
        softcap: float,
    ) -> None:
        self.layout, self.window, self.scale, self.softcap = layout, window, scale, softcap
        self.q, self.k, self.v = q, k, v
        layout.trace.device = q.device.type
        self.head_dim = k.shape[-1]
        self.acc = torch.float64 if q.dtype == torch.float64 else torch.float32
        self.rings = {rows.ring: rows for rows in layout.rings}
        self.blocks: dict[tuple[object, int, int], torch.Tensor] = {}  # (field, ring, part) -> what lies here
        for rows in layout.rings:
            if rows.size > 1:
                own = torch.cat([self.rows(k, rows), self.rows(v, rows)], dim=-1)
                self.blocks[KEYS, rows.ring, self.part(rows)] = own

    def part(self, rows: RingRows) -> int:
        return self.layout.native.part_of(rows.ring, self.layout.rank)

    @staticmethod
    def rows(tensor: torch.Tensor, rows: RingRows) -> torch.Tensor:
        return tensor[rows.begin : rows.end]

    def keys_values(self, step: PreparedStep) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.rings[step.ring]
        if rows.size == 1:
            return self.rows(self.k, rows), self.rows(self.v, rows)
        block = self.blocks[KEYS, step.ring, step.part]
        return block[..., : self.head_dim], block[..., self.head_dim :]

    def attend(self, step: PreparedStep) -> None:
        raise NotImplementedError

    def accumulate(self, step: PreparedStep) -> None:
        raise NotImplementedError

    def message(self, step: PreparedStep) -> Message:
        key = (step.field, step.ring, step.part)
        if step.kind == RECV:
            dtype = self.k.dtype if step.field == KEYS else self.acc
            width = self.head_dim + self.v.shape[-1]
            # The block of two hops ago has been used; without this a rank would end up with every part of its rings.
            self.blocks.pop((step.field, step.ring, (step.part + 2) % self.rings[step.ring].size), None)
            self.blocks[key] = torch.empty(step.rows, self.k.shape[1], width, dtype=dtype, device=self.k.device)
        return Message(step.kind == SEND, self.blocks[key], step.peer)

    def walk(self) -> None:
        trace, steps = self.layout.trace, self.layout.steps(self.window, self.q.device, backward=self.phase == "backward")
        posted: dict[int, Posted] = {}

        def wait_for(after: tuple[int, ...]) -> None:
            for batch in {steps[earlier].batch for earlier in after} & posted.keys():
                with trace.range("wait for a hop", "wait", self.phase):
                    posted[batch].wait()

        at = 0
        while at < len(steps):
            step = steps[at]
            if step.batch < 0:
                wait_for(step.after)
                if step.kind == ATTEND:
                    with trace.range(f"attend ring {step.ring} hop {step.hop}", "attend", self.phase):
                        self.attend(step)
                else:
                    self.accumulate(step)
                at += 1
                continue
            end = at + 1
            while end < len(steps) and steps[end].batch == step.batch:
                end += 1
            for member in steps[at:end]:
                wait_for(member.after)
            with trace.range(f"post ring {step.ring} hop {step.hop}", "post", self.phase):
                posted[step.batch] = self.layout.channel.post([self.message(member) for member in steps[at:end]])
            at = end
        with trace.range("wait for the last hop", "wait", self.phase):
            for batch in posted.values():
                batch.wait()


class ForwardWalker(Walker):
    """Partial results of a ring start from the ones before (attention/params.h: seeds), so a hop needs no merge pass."""

    phase = "forward"

    def run(self, sink: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(out [tokens, heads, head_dim_v] in q's dtype, lse [heads, tokens] in the accumulate type)."""
        self.state: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.walk()
        outs, lses = [], []
        for rows in self.layout.rings:
            out, lse = self.state.get(rows.ring) or self.nothing_seen(rows)
            if sink is not None:
                none = torch.zeros((), dtype=self.acc, device=out.device).expand_as(out)
                out, lse = ops.merge_attention(out, lse, none, sink.to(self.acc)[:, None].expand_as(lse).contiguous())
            outs.append(out.to(self.q.dtype))
            lses.append(lse)
        if not outs:
            return self.nothing_seen(RingRows(-1, 1, 0, 0), self.q.dtype)
        return torch.cat(outs), torch.cat(lses, dim=1)

    def nothing_seen(self, rows: RingRows, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, heads = rows.end - rows.begin, self.q.shape[1]
        out = self.q.new_zeros(tokens, heads, self.v.shape[-1], dtype=dtype or self.acc)
        return out, self.q.new_full((heads, tokens), -torch.inf, dtype=self.acc)

    def attend(self, step: PreparedStep) -> None:
        q, (k, v) = self.rows(self.q, self.rings[step.ring]), self.keys_values(step)
        seed_out, seed_lse = self.state.get(step.ring, (None, None))
        self.state[step.ring] = ops.varlen_attention_forward(
            q, k, v, step.segments, self.scale, self.softcap, None, seed_out, seed_lse, True
        )


class BackwardWalker(Walker):
    """Each hop is exact alone, given the final lse; only dq stays here, dk and dv go home with their keys."""

    phase = "backward"

    def run(
        self, grad_out: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, sink: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """(dq, dk, dv) in the dtype of q, and dsink [heads] in the accumulate type or None."""
        self.grad_out, self.out, self.lse, self.sink = grad_out, out, lse, sink
        self.dq = torch.zeros(self.q.shape, dtype=self.acc, device=self.q.device)
        self.dk = torch.zeros(self.k.shape, dtype=self.acc, device=self.q.device)
        self.dv = torch.zeros(self.v.shape, dtype=self.acc, device=self.q.device)
        self.dsink = None if sink is None else torch.zeros(self.q.shape[1], dtype=self.acc, device=self.q.device)
        self.contributions: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.statistics: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # ring -> lse and D of its rows, for all hops
        self.walk()
        dtype = self.q.dtype
        return self.dq.to(dtype), self.dk.to(dtype), self.dv.to(dtype), self.dsink

    def statistics_of(self, rows: RingRows) -> tuple[torch.Tensor, torch.Tensor]:
        if rows.ring not in self.statistics:
            lse = self.lse[:, rows.begin : rows.end].contiguous()
            delta = ops.attention_delta(self.rows(self.grad_out, rows), None, self.rows(self.out, rows), lse)
            self.statistics[rows.ring] = lse, delta
        return self.statistics[rows.ring]

    def attend(self, step: PreparedStep) -> None:
        rows = self.rings[step.ring]
        k, v = self.keys_values(step)
        lse, delta = self.statistics_of(rows)
        sink = self.sink if step.hop == 0 else None  # its gradient is a sum over rows, not over hops
        dq, dk, dv, dsink = ops.varlen_attention_backward(
            self.rows(self.grad_out, rows),
            None,
            self.rows(self.q, rows),
            k,
            v,
            self.rows(self.out, rows),
            lse,
            step.segments,
            self.scale,
            self.softcap,
            sink,
            True,
            delta,
            torch.are_deterministic_algorithms_enabled(),
        )
        self.rows(self.dq, rows).add_(dq)
        if self.dsink is not None and sink is not None:
            self.dsink += dsink
        if rows.size == 1:
            self.rows(self.dk, rows).copy_(dk)
            self.rows(self.dv, rows).copy_(dv)
        elif step.hop == 0:
            self.blocks[GRADIENTS, step.ring, step.part] = torch.cat([dk, dv], dim=-1)
        else:
            self.contributions[step.ring, step.part] = dk, dv

    def accumulate(self, step: PreparedStep) -> None:
        gradient = self.blocks[GRADIENTS, step.ring, step.part]
        rows = self.rings[step.ring]
        if step.hop == rows.size:  # home again
            self.rows(self.dk, rows).copy_(gradient[..., : self.head_dim])
            self.rows(self.dv, rows).copy_(gradient[..., self.head_dim :])
        elif contribution := self.contributions.pop((step.ring, step.part), None):
            gradient[..., : self.head_dim] += contribution[0]
            gradient[..., self.head_dim :] += contribution[1]
