"""Times contenders side by side, so that a noisy machine disturbs all of them alike.

One round runs every contender once, in an order that rotates from round to round. The figure that counts is the ratio
to the baseline *within* a round, of which the median is taken: drift (frequency, a neighbour's load) cancels in it, and a
burst that hits one round is voted out. Medians of the plain times are printed for orientation only.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Times of several contenders on one case."""

    case: str  # such as "causal bf16, 16 documents, 32768 tokens"
    baseline: str  # the contender that a user would use instead
    seconds: dict[str, list[float]]  # per contender: seconds per call, one number for each round
    work: Mapping[str, float]  # per call, by unit: {"FLOP": ..., "byte": ...}; rates are derived from it

    def median(self, name: str) -> float:
        """Median seconds per call of contender `name`."""
        return statistics.median(self.seconds[name])

    def speedups(self, name: str) -> list[float]:
        """Per round: baseline seconds / seconds of `name`. Above 1, `name` is the faster one."""
        return [base / own for base, own in zip(self.seconds[self.baseline], self.seconds[name], strict=True)]

    def speedup(self, name: str) -> float:
        """Median over the rounds of the ratio within a round."""
        return statistics.median(self.speedups(name))

    def spread(self, name: str) -> tuple[float, float]:
        """Lower and upper quartile of the ratio within a round."""
        ratios = sorted(self.speedups(name))
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return lower, upper

    def rate(self, name: str, unit: str) -> float:
        """`unit` per second of contender `name`, from its median."""
        return self.work[unit] / self.median(name)


def compare(
    case: str,
    contenders: Mapping[str, Callable[[], object]],
    *,
    baseline: str | None = None,
    rounds: int = 7,
    sample_seconds: float = 0.05,
    work: Mapping[str, float] | None = None,
    synchronize: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Times `contenders` (name -> call without arguments) in interleaved rounds.

    A sample repeats the call until it lasts about `sample_seconds`; the repeat count comes from a warm-up call, which is
    not counted. `baseline` defaults to the first contender. `synchronize` (such as torch.cuda.synchronize) ends a sample
    on a device that runs behind the host.

    Raises ValueError for no contenders, an unknown baseline or fewer than one round.
    """
    if not contenders:
        raise ValueError(f"case {case!r} has no contenders")
    baseline = baseline if baseline is not None else next(iter(contenders))
    if baseline not in contenders:
        raise ValueError(f"baseline is {baseline!r}, must be one of {', '.join(contenders)}")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, must be at least 1")

    def sample(call: Callable[[], object], repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            call()
        if synchronize is not None:
            synchronize()
        return max(clock() - begin, 1e-9) / repeats

    repeats = {}
    for name, call in contenders.items():
        sample(call, 1)  # first calls pay for allocation, compilation and cold caches
        repeats[name] = max(1, math.ceil(sample_seconds / sample(call, 1)))

    seconds = interleaved(contenders, lambda name: sample(contenders[name], repeats[name]), rounds)
    return Comparison(case, baseline, seconds, dict(work or {}))


def interleaved(names: Iterable[str], sample: Callable[[str], float], rounds: int) -> dict[str, list[float]]:
    """`rounds` samples of each name, in rounds whose order rotates."""
    order = list(names)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for turn in range(rounds):
        start = turn % len(order)
        for name in [*order[start:], *order[:start]]:
            seconds[name].append(sample(name))
    return seconds
