"""One training step: plan, read, forward and backward per micro-batch, one sum of gradients, one update."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.profiler import record_function
from transformers import LlamaForCausalLM

import hetsp_ext

from ..calibration import MeasuredCost
from ..integrations.transformers import model_inputs
from ..runqueue import delay_seconds
from ..timeline import Event
from .gradients import sum_gradients
from .ranks import Ranks

__all__ = [
    "FittedPrediction",
    "MeasuredPrediction",
    "Planner",
    "Prediction",
    "StepResult",
    "Trainer",
    "busy_fractions",
]


@dataclass(frozen=True)
class Planner:
    """How the steps of a run are planned; rank 0 does it, the others receive the plan."""

    cluster: Any
    cost_model: Any
    strategy: str
    sequence_seconds: float = 0.0  # that each document costs whatever its length
    seed: int = 0  # of the search

    def plan(self, lengths: list[int], rank: int) -> Any:
        if rank != 0:
            return hetsp_ext.agree(None)
        sequences = [hetsp_ext.Sequence(length, fixed_cost=self.sequence_seconds) for length in lengths]
        made = hetsp_ext.plan(sequences, self.cluster, self.cost_model, strategy=self.strategy, seed=self.seed)
        return hetsp_ext.agree(made)


@dataclass(frozen=True)
class StepResult:
    """What a step did; equal on every rank but for `events`, which are this rank's own. Times in seconds."""

    step: int
    plan: Any
    loss: float
    tokens: int
    seconds: float  # wall time of the whole step on the slowest rank, from planning to the updated weights
    work_seconds: list[float]  # [ranks] forward and backward, waits for peers included
    wait_seconds: list[float]  # [ranks] of these, spent waiting for peers
    delay_seconds: list[float]  # [ranks] of work_seconds, spent ready to run while other threads had the cores
    other_delay_seconds: list[float]  # [ranks] the same of the rest of the step
    rank_tokens: list[int]  # [ranks] executed
    rank_pairs: list[int]  # [ranks] executed, per head and layer
    events: list[Event] = field(repr=False)
    traced: list[Any] = field(repr=False)  # this rank's events of attention, TraceEvent; empty without trace

    @property
    def measured(self) -> float:
        """What a prediction of the plan predicts: the slowest rank's forward and backward."""
        return max(self.work_seconds)

    @property
    def busy(self) -> list[float]:
        return busy_fractions(self.work_seconds, self.wait_seconds)


def busy_fractions(work: list[float], wait: list[float]) -> list[float]:
    """[ranks] the part of the slowest rank's time in which a rank computed."""
    slowest = max(work)
    return [(w - idle) / slowest if slowest > 0 else 1.0 for w, idle in zip(work, wait, strict=True)]


@dataclass
class Trainer:
    """A model, its optimizer and its documents on one rank."""

    model: LlamaForCausalLM
    source: hetsp_ext.SequenceSource
    ranks: Ranks
    learning_rate: float
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate)

    def run(
        self, step: int, planner: Planner, *, trace: bool = False, before_update: Callable[[StepResult], None] | None = None
    ) -> StepResult:
        """Trains on the documents of one step (counted from 0). `before_update` sees the summed gradients; untimed."""
        dist.barrier()  # what rank 0 does between steps is no part of a step, and the ranks' clocks start together
        clock, at_start = Clock(), delay_seconds()
        with clock.range("plan"):
            documents = hetsp_ext.StepSequences(self.source, step)
            plan = planner.plan(documents.lengths, self.ranks.rank)
        with clock.range("read"):
            shards = hetsp_ext.shard(plan, documents, device=self.ranks.device, trace=trace)
        begin, delayed = time.perf_counter(), delay_seconds()
        loss = sum(self.forward_backward(shard, plan, clock) for shard in shards)
        work, delayed = time.perf_counter() - begin, delay_seconds() - delayed
        with clock.range("gradient sum"):
            sum_gradients(self.model.parameters())
        own = [
            float(loss), clock.elapsed(), work, sum(shard.layout.waited for shard in shards),
            sum(shard.layout.tokens for shard in shards), sum(shard.layout.pairs for shard in shards), delayed,
        ]  # fmt: skip
        every = gathered(own, self.ranks)
        traced = [event for shard in shards for event in shard.layout.events]
        result = StepResult(
            step=step,
            plan=plan,
            loss=sum(row[0] for row in every),
            tokens=sum(documents.lengths),
            seconds=max(row[1] for row in every),
            work_seconds=[row[2] for row in every],
            wait_seconds=[row[3] for row in every],
            delay_seconds=[row[6] for row in every],
            other_delay_seconds=[],
            rank_tokens=[int(row[4]) for row in every],
            rank_pairs=[int(row[5]) for row in every],
            events=clock.events + [clock.event(event) for event in traced],
            traced=traced,
        )
        if before_update is not None:
            before_update(result)
        begin = time.perf_counter()
        with record_function("hetsp::optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.synchronize()
        update = gathered([time.perf_counter() - begin, delay_seconds() - at_start - delayed], self.ranks)
        return replace(
            result,
            seconds=result.seconds + max(row[0] for row in update),
            other_delay_seconds=[row[1] for row in update],
        )

    def forward_backward(self, shard: Any, plan: Any, clock: Clock) -> float:
        """Adds a micro-batch's gradients to the model's; returns this rank's share of the loss."""
        number = shard.layout.micro_batch
        with clock.range(f"forward {number}"), self.precision():
            hidden = self.model.model(**model_inputs(shard)).last_hidden_state[0, : shard.labels.numel()]
            loss = hetsp_ext.chunked_cross_entropy(hidden, self.model.lm_head.weight, shard.labels)
            share = hetsp_ext.token_mean(loss, plan)
        with clock.range(f"backward {number}"):
            share.backward()
            self.synchronize()
        return share.item()

    def synchronize(self) -> None:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()  # a time without it would be that of the launches

    def precision(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.ranks.device.type, self.autocast)


class Clock:
    """Times named parts of a step from its start, and shows them to torch.profiler."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.events: list[Event] = []

    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def range(self, name: str) -> ClockRange:
        return ClockRange(self, name)

    def event(self, traced: Any) -> Event:
        """An event of attention, from the start of the step."""
        return Event(f"{traced.phase} {traced.name}", traced.kind, traced.begin - self.start, traced.end - self.start)


class ClockRange:
    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name, self.profiled = clock, name, record_function(f"hetsp::{name}")

    def __enter__(self) -> None:
        self.begin = self.clock.elapsed()
        self.profiled.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.profiled.__exit__(*error)
        self.clock.events.append(Event(self.name, "step", self.begin, self.clock.elapsed()))


def gathered(own: list[float], ranks: Ranks) -> list[list[float]]:
    """[ranks][values]: every rank's values, on every rank."""
    mine = torch.tensor(own, dtype=torch.float64, device=ranks.device)
    every = [torch.empty_like(mine) for _ in range(ranks.size)]
    dist.all_gather(every, mine)
    return [row.tolist() for row in every]


class Prediction(Protocol):
    """What a step is expected to take."""

    def fit(self, result: StepResult) -> None:
        """Learns from a measured step, where it learns at all."""

    def seconds(self, plan: Any) -> float:
        """Of forward and backward on the slowest rank: StepResult.measured."""

    def step_seconds(self, plan: Any) -> float | None:
        """Of the whole step: StepResult.seconds; None where nothing is known of the rest."""


@dataclass
class FittedPrediction:
    """The plan's makespan, times the seconds of this machine per second of the cost model, fitted once."""

    factor: float | None = None

    def fit(self, result: StepResult) -> None:
        if self.factor is None and result.plan.makespan > 0:
            self.factor = result.measured / result.plan.makespan

    def seconds(self, plan: Any) -> float:
        return plan.makespan * (self.factor or 1.0)

    def step_seconds(self, plan: Any) -> float | None:
        return None


@dataclass(frozen=True)
class MeasuredPrediction:
    """The seconds of a cost model that was measured before; steps teach it nothing."""

    cost: MeasuredCost

    def fit(self, result: StepResult) -> None:
        pass

    def seconds(self, plan: Any) -> float:
        return self.cost.seconds(plan)

    def step_seconds(self, plan: Any) -> float | None:
        return self.cost.seconds(plan) + self.cost.step_seconds
