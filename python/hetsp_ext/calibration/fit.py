"""Times as non-negative sums of known counts: what a least-squares fit can say about a machine.

A point is a measured time t and the counts f of what was done in it: pairs, tokens, messages. Sought are seconds c >= 0 of each
with f c = t. Errors count in relation to the whole T that the time is a part of, or to t where it is the whole:

    min sum_i ( (f_i c - t_i) / T_i )^2     subject to     c >= 0

which is non-negative least squares (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23). A count that the
times do not need gets exactly 0, never a negative cost that would make longer work cheaper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from ..errors import InvalidArgument

__all__ = ["Fit", "Point", "fit", "nonnegative_least_squares"]

MOST_COLUMNS = 10  # 2^10 small problems take a tenth of a second
DEPENDENT = 1e-6  # least singular value of columns of length 1 below which they say the same thing
SAME = 1e-12  # relative difference of residuals that rounding explains


@dataclass(frozen=True)
class Point:
    """`seconds` that `counts` took; `name` says of what.

    `whole` is the seconds that they are a part of, and that an error matters to; None: themselves.
    """

    name: str
    seconds: float
    counts: Mapping[str, float]
    whole: float | None = None

    def predicted(self, coefficients: Mapping[str, float]) -> float:
        """Seconds, by the seconds of each count; a count without them costs nothing."""
        return sum(count * coefficients.get(name, 0.0) for name, count in self.counts.items())


@dataclass(frozen=True)
class Fit:
    """Seconds per count, by the name of the count, and the points that they were fitted to."""

    coefficients: dict[str, float]
    points: tuple[Point, ...]

    @property
    def errors(self) -> list[float]:
        """Predicted over measured, minus 1, point by point."""
        return [point.predicted(self.coefficients) / point.seconds - 1.0 for point in self.points]


def fit(points: Sequence[Point], names: Sequence[str]) -> Fit:
    """The non-negative seconds of each of `names` that fit the points best.

    Counts that no point has get 0; so does all but the first of counts that always stand in one proportion.

    Raises:
        InvalidArgument: no points, a time (or whole) that is not above 0, or a count that is negative or not finite.
    """
    if not points:
        raise InvalidArgument(f"a fit of {', '.join(names)} needs at least one point")
    for point in points:
        for seconds in (point.seconds, point.whole if point.whole is not None else point.seconds):
            if not 0.0 < seconds < float("inf"):
                raise InvalidArgument(f"point {point.name!r} took {seconds} s; a finite time above 0 is needed")
        for name in names:
            count = point.counts.get(name, 0.0)
            if not 0.0 <= count < float("inf"):
                raise InvalidArgument(f"point {point.name!r} counts {count} {name}; finite and at least 0 is needed")
    wholes = [point.seconds if point.whole is None else point.whole for point in points]
    rows = [[point.counts.get(name, 0.0) / whole for name in names] for point, whole in zip(points, wholes, strict=True)]
    target = [point.seconds / whole for point, whole in zip(points, wholes, strict=True)]
    return Fit(dict(zip(names, nonnegative_least_squares(rows, target), strict=True)), tuple(points))


def nonnegative_least_squares(rows: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """x >= 0 that minimises |rows x - target|; where several do, one with independent columns, the fewest and the first.

    A machine has a handful of unknowns, so every set of columns is tried: the best unconstrained solution among those that are
    positive is the optimum, because the optimum is the unconstrained solution over the columns where it is positive.
    """
    a = torch.tensor(rows, dtype=torch.float64).reshape(len(target), -1)
    b = torch.tensor(target, dtype=torch.float64)
    columns = a.shape[1]
    if columns > MOST_COLUMNS:
        raise InvalidArgument(f"a fit of {columns} unknowns; at most {MOST_COLUMNS} are allowed")
    length = a.norm(dim=0)
    length = torch.where(length > 0, length, 1.0)  # counts differ by ten powers of ten; equal lengths let one tolerance judge
    a = a / length
    best, least = torch.zeros(columns, dtype=torch.float64), b.norm().item()
    for size in range(1, columns + 1):
        for chosen in combinations(range(columns), size):
            inside = a[:, list(chosen)]
            if torch.linalg.svdvals(inside).amin() < DEPENDENT or len(target) < size:
                continue
            solution = torch.linalg.lstsq(inside, b[:, None], driver="gelsd").solution[:, 0]
            residual = (inside @ solution - b).norm().item()
            if (solution > 0).all() and residual < least * (1.0 - SAME):
                least, best = residual, torch.zeros_like(best).index_copy(0, torch.tensor(chosen), solution)
    return (best / length).tolist()
