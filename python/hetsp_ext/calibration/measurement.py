"""From repeated measurements of probe steps to a cost model."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidArgument
from .fit import Fit, Point, fit
from .measured import PARTS, RANK_PARTS, MeasuredCost, Setting

__all__ = ["Measurement", "fit_parts", "measured_cost"]


@dataclass(frozen=True)
class Measurement:
    """One probe step, measured several times.

    Attributes:
        name: of the probe.
        counts: what a rank does in it, under the names of PARTS.
        samples: {part: seconds} of each repetition; "exchange" only where a sequence is shared.
        delays: of each repetition the share of time in which other programs had the cores; empty where that is not known.
    """

    name: str
    counts: Mapping[str, float]
    samples: Sequence[Mapping[str, float]]
    delays: Sequence[float] = ()

    def least_disturbed(self) -> "Measurement":
        """The half of the repetitions, rounded up, with the least delays.

        The delays themselves are no part of the samples, but a rank that returns to its core finds the caches full of others'
        data: on a machine with one program more than cores, a step's own time was 10 % longer than on a quiet one.
        """
        kept = sorted(range(len(self.delays)), key=self.delays.__getitem__)[: -(-len(self.delays) // 2)]
        return replace(self, samples=[self.samples[index] for index in kept], delays=()) if kept else self

    def seconds(self, part: str) -> float:
        """Median over the repetitions: a neighbour's burst in one of them is voted out."""
        return statistics.median(sample[part] for sample in self.samples)

    @property
    def total(self) -> float:
        """Of forward and backward, the median over the repetitions."""
        return statistics.median(self.totals())

    def totals(self) -> list[float]:
        """Forward and backward, of each repetition."""
        return [sum(sample.get(part, 0.0) for part in RANK_PARTS) for sample in self.samples]

    @property
    def spread(self) -> float:
        """Slowest over fastest repetition, minus 1."""
        return max(self.totals()) / min(self.totals()) - 1.0

    def predicted(self, parts: Mapping[str, Mapping[str, float]]) -> float:
        """Of forward and backward."""
        return sum(self.counts.get(count, 0.0) * each for part in RANK_PARTS for count, each in parts[part].items())


def fit_parts(measurements: Sequence[Measurement]) -> dict[str, Fit]:
    """Each part fitted on its own times. Raises InvalidArgument where there are none; a part that no probe has costs 0."""
    fits = {}
    for part, counts in PARTS.items():
        points = [
            Point(each.name, each.seconds(part), {count: each.counts.get(count, 0.0) for count in counts}, each.total)
            for each in measurements
            if all(part in sample for sample in each.samples)
        ]
        fits[part] = fit(points, counts) if points else Fit(dict.fromkeys(counts, 0.0), ())
    return fits


def measured_cost(measurements: Sequence[Measurement], setting: Setting, record: Mapping[str, Any]) -> MeasuredCost:
    """The fitted model; the record of its file gets the points, as plain JSON.

    Raises:
        InvalidArgument: no measurements, or one without a positive time.
    """
    if not measurements:
        raise InvalidArgument("no probe was measured; a cost model needs at least one")
    kept = [each.least_disturbed() for each in measurements]
    fits = fit_parts(kept)
    parts = {part: each.coefficients for part, each in fits.items()}
    points = [
        {"part": part, "probe": point.name, "counts": dict(point.counts), "measured": point.seconds, "error": error}
        for part, each in fits.items()
        for point, error in zip(each.points, each.errors, strict=True)
    ]
    totals = [
        {
            "probe": each.name,
            "measured": each.total,
            "predicted": each.predicted(parts),
            "spread": every.spread,
        }
        for each, every in zip(kept, measurements, strict=True)
    ]
    return MeasuredCost(parts, setting, {**record, "probes": totals, "points": points})
