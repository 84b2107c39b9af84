"""The fit: known seconds come back from noisy points, and the corners of non-negative least squares."""

import random

import pytest
import torch

from hetsp_ext.calibration import Point, fit
from hetsp_ext.calibration.fit import MOST_COLUMNS, nonnegative_least_squares
from hetsp_ext.errors import InvalidArgument

NAMES = ("pairs", "tokens", "sequences", "micro_batches")


def points_of(draw: random.Random, seconds: dict[str, float], noise: float) -> list[Point]:
    """Probes of equal sequences, as a calibration runs them, each time off by at most `noise`."""
    points = []
    for length in (64, 256, 1024, 4096, 16384):
        for count in (1, 4, 16):
            counts = {
                "pairs": count * length * (length + 1) / 2,
                "tokens": count * length,
                "sequences": count,
                "micro_batches": 1,
            }
            exact = sum(seconds[name] * counts[name] for name in NAMES)
            points.append(Point(f"{count} x {length}", exact * (1 + draw.uniform(-noise, noise)), counts))
    return points


@pytest.mark.parametrize("seed", range(20))
def test_known_seconds_come_back(seed: int) -> None:
    draw = random.Random(seed)
    seconds = {
        "pairs": 10 ** draw.uniform(-9, -7),
        "tokens": 10 ** draw.uniform(-6, -4),
        "sequences": 10 ** draw.uniform(-5, -3),
        "micro_batches": draw.choice([0.0, 10 ** draw.uniform(-4, -2)]),
    }
    exact = fit(points_of(draw, seconds, 0.0), NAMES)
    for name in NAMES:
        assert exact.coefficients[name] == pytest.approx(seconds[name], rel=1e-6, abs=1e-12)
    assert max(abs(error) for error in exact.errors) < 1e-8
    noise = 0.03
    noisy = fit(points_of(draw, seconds, noise), NAMES)
    # The true seconds leave no more than `noise` at any point, so the best ones leave no more than that on average.
    assert sum(error**2 for error in noisy.errors) ** 0.5 <= noise * len(noisy.errors) ** 0.5 / (1 - noise)
    for point in noisy.points:
        assert point.predicted(noisy.coefficients) == pytest.approx(point.predicted(seconds), rel=8 * noise)


@pytest.mark.parametrize("seed", range(60))
def test_the_solution_satisfies_the_conditions_of_an_optimum(seed: int) -> None:
    draw = random.Random(seed)
    rows, columns = draw.randint(1, 9), draw.randint(1, 6)
    values = [-1.0, 0.0, 0.0, 1.0, 1.0, 2.0] if seed % 3 == 0 else None
    a = [[draw.choice(values) if values else draw.uniform(-1, 2) for _ in range(columns)] for _ in range(rows)]
    if columns > 1 and seed % 2:
        other = draw.randrange(1, columns)  # in proportion to the first
        for row in a:
            row[other] = 3.0 * row[0]
    b = [draw.uniform(-1, 2) for _ in range(rows)]
    x = nonnegative_least_squares(a, b)
    matrix, target, found = (torch.tensor(value, dtype=torch.float64) for value in (a, b, x))
    gradient = matrix.T @ (matrix @ found - target)
    assert min(x) >= 0
    # Karush-Kuhn-Tucker, which is sufficient as the problem is convex: no count wants more, none that is used wants less.
    assert gradient.min() >= -1e-6
    assert gradient[found > 0].abs().max() <= 1e-6 if (found > 0).any() else True


def test_counts_in_proportion_are_paid_once() -> None:
    points = [Point(str(n), 2.0 * n, {"tokens": n, "bytes": 4 * n, "absent": 0}) for n in (1, 2, 5)]
    found = fit(points, ("tokens", "bytes", "absent", "unheard of"))
    assert found.coefficients == pytest.approx({"tokens": 2.0, "bytes": 0.0, "absent": 0.0, "unheard of": 0.0})


def test_one_point_is_fitted_exactly() -> None:
    found = fit([Point("only", 3.0, {"tokens": 6, "sequences": 1})], ("tokens", "sequences"))
    assert found.errors == pytest.approx([0.0])
    assert sum(value > 0 for value in found.coefficients.values()) == 1


def test_longer_work_is_never_cheaper() -> None:
    # Times that fall with the tokens: without the constraint a token would cost less than nothing.
    points = [Point(str(n), 10.0 - n, {"tokens": n, "micro_batches": 1}) for n in (1, 2, 3)]
    found = fit(points, ("tokens", "micro_batches"))
    assert found.coefficients["tokens"] == 0.0
    assert 7.0 <= found.coefficients["micro_batches"] <= 9.0


def test_an_error_counts_against_the_whole() -> None:
    # The short point is a thousandth of its whole, so the long one decides.
    points = [Point("short", 2.0, {"tokens": 1}, whole=2000.0), Point("long", 1000.0, {"tokens": 1000}, whole=1000.0)]
    assert fit(points, ("tokens",)).coefficients["tokens"] == pytest.approx(1.0, rel=1e-3)
    alone = [Point(point.name, point.seconds, point.counts) for point in points]
    assert fit(alone, ("tokens",)).coefficients["tokens"] > 1.1


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "at least one point"),
        ([Point("p", 0.0, {"tokens": 1})], "point 'p' took 0.0 s"),
        ([Point("p", float("nan"), {"tokens": 1})], "point 'p' took nan s"),
        ([Point("p", 1.0, {"tokens": 1}, whole=0.0)], "point 'p' took 0.0 s"),
        ([Point("p", 1.0, {"tokens": -1})], "point 'p' counts -1 tokens"),
        ([Point("p", 1.0, {"tokens": float("inf")})], "point 'p' counts inf tokens"),
    ],
)
def test_a_point_that_cannot_be_is_refused(points: list[Point], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        fit(points, ("tokens",))


def test_too_many_unknowns_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=f"{MOST_COLUMNS + 1} unknowns"):
        nonnegative_least_squares([[1.0] * (MOST_COLUMNS + 1)], [1.0])
