"""Seconds of a step from what its ranks do: the four parts that are measured, and the cost model that they add up to.

    attention   pairs, tokens, sequences and micro-batches of a rank: forward and backward of the attention kernel
    linear      tokens, sequences and micro-batches of a rank: all else of forward and backward
    exchange    hops of a rank's rings, and the tokens that it sends in each: start-up and bandwidth of the links
    step        once a step: planning, reading, the sum of the gradients, the optimizer

A rank's seconds of forward and backward are linear in these counts, and so they are a `CostModel`: a count's coefficients in
the first three parts add up to the model's. What a plan takes is then a question of who waits for whom, which the simulator
answers. Links are those between the ranks that were measured; a calibration on one machine knows one tier.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..planner import CostModel, Sequence, visible_pairs
from ..simulator import simulate

__all__ = ["PARTS", "RANK_PARTS", "MeasuredCost", "Setting"]

# What each part is fitted to. A pair is a visible (query, key) pair of one head and layer; a hop is one of the d - 1 times
# that keys and values move on in a ring of d ranks, in all layers, forward and backward; hop_tokens are what a rank sends then.
PARTS: dict[str, tuple[str, ...]] = {
    "attention": ("pairs", "tokens", "sequences", "micro_batches"),
    "linear": ("tokens", "sequences", "micro_batches"),
    "exchange": ("hops", "hop_tokens"),
    "step": ("steps",),
}
RANK_PARTS = ("attention", "linear", "exchange")  # of forward and backward


@dataclass(frozen=True)
class Setting:
    """What was measured: times hold for it alone."""

    device: str  # "cpu" or "cuda"
    ranks: int  # that worked at once, and shared the memory's bandwidth
    threads: int  # of each rank
    dtype: str
    model: Mapping[str, int]  # the fields of ModelShape that a Llama has

    def differences(self, other: "Setting") -> list[str]:
        """Where `other` takes other times, as "dtype is float32, not float64"; ranks and threads are left to the caller."""
        found = [
            f"{name} is {getattr(self, name)}, not {getattr(other, name)}"
            for name in ("device", "dtype")
            if getattr(self, name) != getattr(other, name)
        ]
        return found + [
            f"the model's {name} is {self.model.get(name)}, not {other.model.get(name)}"
            for name in sorted({*self.model, *other.model})
            if self.model.get(name) != other.model.get(name)
        ]


@dataclass(frozen=True)
class MeasuredCost:
    """Seconds per count of each part, with what they were measured on.

    Attributes:
        parts: {part: {count: seconds}} with the parts and counts of PARTS.
        setting: model, device and ranks.
        record: the rest of the file, as plain JSON: date, machine, command, the points of the fit.
    """

    parts: Mapping[str, Mapping[str, float]]
    setting: Setting
    record: Mapping[str, Any] = field(default_factory=dict)

    def seconds_per(self, count: str) -> float:
        """Of forward and backward, on a rank that does one more of `count`."""
        return sum(self.parts[part].get(count, 0.0) for part in RANK_PARTS)

    @property
    def step_seconds(self) -> float:
        """Of a step beside forward and backward."""
        return self.parts["step"]["steps"]

    @cached_property
    def cost_model(self) -> Any:
        """The `CostModel`, a table. Its sequences carry a fixed cost: plan those of `sequences()`."""
        hop = self.seconds_per("hop_tokens")
        return CostModel(
            self.seconds_per("pairs"),
            self.seconds_per("tokens"),
            links=[(2, hop), (3, 2 * hop)],  # d - 1 hops of 1/d of the tokens each: linear in d, as the table goes on
            hop_seconds=self.seconds_per("hops"),
            micro_batch_seconds=self.seconds_per("micro_batches"),
        )

    def sequences(self, lengths: Iterable[int], window: int = -1) -> list[Any]:
        """`Sequence` objects of so many tokens, with the seconds that each costs whatever its length.

        window: keys that a query sees before its own; -1: all of them.
        """
        fixed = self.seconds_per("sequences")
        return [Sequence(length, visible_pairs(length, window), fixed) for length in lengths]

    def timeline(self, plan: Any) -> Any:
        """The plan as the engine runs it: sequences of a group travel together, and ranks wait where a ring makes them.

        Nothing is hidden: on a CPU the messages are work of the same cores. On a GPU that is a bound from above.
        """
        return simulate(plan, self.cost_model, overlap=False, packed=True)

    def seconds(self, plan: Any) -> float:
        """Of the plan's forward and backward, on the slowest rank."""
        return self.timeline(plan).makespan
