"""hetsp_ext.lp against HiGHS: random programmes biased to corners, warm starts, masters of column generation, bad input."""

import numpy as np
import pytest

import hetsp_ext as hetsp
from hetsp_ext.errors import InvalidArgument
from tests.support.highs import highs_model, run_highs

sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed: requirements-dev.txt has it")

CASES = 60  # programmes per seed
TOLERANCE = 1e-7  # that of HiGHS is 1e-7 primal and dual, ours 1e-9


class RandomLp:
    """Corners: infinite, equal and zero bounds, empty and repeated lines, tied costs, degenerate vertices, wide ranges."""

    def __init__(self, rng: np.random.Generator, rows: int, columns: int) -> None:
        self.rng = rng
        density = rng.choice([0.1, 0.4, 0.9])
        values = rng.choice([-1.0, 1.0, 2.0, 3.0], (rows, columns))
        if rng.random() < 0.5:
            values = rng.normal(size=(rows, columns)).round(2)
        if rng.random() < 0.15:
            values = values * 2.0 ** rng.integers(-10, 11, (rows, 1)) * 2.0 ** rng.integers(-10, 11, columns)
        dense = values * (rng.random((rows, columns)) < density)
        if columns > 1 and rng.random() < 0.3:
            dense[:, 1] = dense[:, 0]
        if rows > 1 and rng.random() < 0.3:
            dense[1] = dense[0]
        self.matrix = sparse.csc_matrix(dense)
        self.cost = rng.integers(-1, 3, columns) * 1.0 if rng.random() < 0.4 else rng.normal(size=columns).round(3)
        self.lower, self.upper = self.bounds(columns)
        self.row_lower, self.row_upper = self.bounds(rows)
        if rng.random() < 0.7:  # feasible: bounds of rows around a point, most of them through it
            point = np.where(np.isfinite(self.lower), self.lower, np.where(np.isfinite(self.upper), self.upper, 0.0))
            activity = self.matrix @ point
            slack = rng.integers(0, 2, rows)
            self.row_lower = np.where(np.isfinite(self.row_lower), activity - slack, -np.inf)
            self.row_upper = np.where(np.isfinite(self.row_upper), activity + rng.integers(0, 2, rows), np.inf)

    def bounds(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        lower = self.rng.integers(-3, 3, size) * 1.0
        upper = lower + self.rng.integers(0, 5, size)
        kind = self.rng.integers(0, 6, size)
        lower[(kind == 0) | (kind == 1)] = -np.inf
        upper[(kind == 0) | (kind == 2)] = np.inf
        lower[kind == 3], upper[kind == 3] = 0.0, np.inf
        return lower, upper

    def arguments(self) -> tuple:
        return self.cost, self.matrix, self.lower, self.upper, self.row_lower, self.row_upper


def check_against_highs(problem: RandomLp, ours: hetsp.lp.Result) -> str:
    status, objective = run_highs(highs_model(*problem.arguments(), presolve="off"))
    if status == "other":
        return status
    assert ours.status == status
    if status == "optimal":
        assert ours.objective == pytest.approx(objective, rel=TOLERANCE, abs=TOLERANCE)
    return status


@pytest.mark.parametrize("seed", range(24))
def test_status_and_objective_are_those_of_highs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(CASES):
        rows, columns = rng.integers(1, 12, 2) if rng.random() < 0.8 else rng.integers(10, 60, 2)
        problem = RandomLp(rng, rows, columns)
        seen.append(check_against_highs(problem, hetsp.lp.solve(*problem.arguments())))
    assert seen.count("optimal") > CASES // 6
    assert seen.count("other") < CASES // 10, "the oracle gave up too often to prove anything"


@pytest.mark.parametrize("seed", range(6))
def test_an_optimum_proves_itself(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    optimal = 0
    for _ in range(CASES):
        problem = RandomLp(rng, *rng.integers(1, 30, 2))
        result = hetsp.lp.solve(*problem.arguments())
        if result.status != "optimal":
            continue
        optimal += 1
        scale = 1.0 + abs(problem.matrix).max() * (1.0 + abs(result.x).max(initial=0.0))
        assert result.row_activity == pytest.approx(problem.matrix @ result.x, abs=1e-9 * scale)
        assert result.reduced_costs == pytest.approx(problem.cost - problem.matrix.T @ result.duals, abs=1e-8)
        bound = np.where(result.duals > 0, problem.row_lower, problem.row_upper)
        column_bound = np.where(result.reduced_costs > 0, problem.lower, problem.upper)
        terms = [y * b for y, b in zip(result.duals, bound, strict=True) if abs(y) > 1e-9]
        terms += [d * b for d, b in zip(result.reduced_costs, column_bound, strict=True) if abs(d) > 1e-9]
        assert sum(terms) == pytest.approx(result.objective, rel=1e-6, abs=1e-6)
    assert optimal > CASES // 5


@pytest.mark.parametrize("seed", range(4))
def test_a_master_that_grows_follows_highs(seed: int) -> None:
    # Covering rows, columns of cost 1..8 that come ten at a time: what column generation does.
    rng = np.random.default_rng(seed)
    rows = [15, 40, 80, 120][seed]
    demand = rng.integers(1, 6, rows) * 1.0
    cost, matrix = np.full(rows, 8.0), sparse.identity(rows, format="csc")
    master = hetsp.lp.Simplex(cost, matrix, row_lower=demand)
    objective = master.solve().objective
    for _ in range(15):
        new = sparse.random(rows, 10, density=min(1.0, 6 / rows), format="csc", random_state=rng)
        new.data = rng.integers(1, 4, new.data.size) * 1.0
        prices = rng.integers(1, 9, 10) * 1.0
        for j in range(10):
            column = new[:, [j]].tocsc()
            assert master.add_column(prices[j], column.indices, column.data) == matrix.shape[1] + j
        matrix, cost = sparse.hstack([matrix, new], format="csc"), np.concatenate([cost, prices])
        result = master.solve()
        unlimited = np.full(cost.size, np.inf)
        status, expected = run_highs(highs_model(cost, matrix, np.zeros(cost.size), unlimited, demand, np.full(rows, np.inf)))
        assert (result.status, status) == ("optimal", "optimal")
        assert result.objective == pytest.approx(expected, rel=TOLERANCE)
        assert result.objective <= objective * (1 + 1e-12)
        assert (result.duals >= -1e-9).all()
        objective = result.objective


def test_matrix_forms_are_one() -> None:
    dense = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
    csc = sparse.csc_matrix(dense)
    arguments = ([1.0, 1.0, 1.0], 0.0, np.inf, np.array([4.0, 3.0]))
    cost, lower, upper, row_lower = arguments
    results = [
        hetsp.lp.solve(cost, matrix, lower, upper, row_lower)
        for matrix in (dense, dense.tolist(), csc, csc.tocoo(), sparse.csr_array(dense), (csc.data, csc.indices, csc.indptr))
    ]
    assert all(r.status == "optimal" and r.objective == results[0].objective for r in results)
    assert results[0].objective == pytest.approx(2.0 + 1.0 / 3.0)


def test_rays() -> None:
    infeasible = hetsp.lp.solve([0.0], [[1.0]], 0.0, 1.0, [2.0])
    assert infeasible.status == "infeasible"
    assert infeasible.ray[0] * 2.0 > max(0.0, infeasible.ray[0] * 1.0)
    unbounded = hetsp.lp.solve([-1.0, 0.0], [[1.0, -1.0]], row_upper=[1.0])
    assert unbounded.status == "unbounded"
    assert unbounded.ray[0] > 0
    assert unbounded.ray[0] - unbounded.ray[1] <= 1e-12
    assert hetsp.lp.solve([1.0], [[1.0]], row_lower=[1.0]).ray is None


def test_changes_between_solves() -> None:
    simplex = hetsp.lp.Simplex([1.0, 3.0], [[1.0, 1.0]], row_lower=[2.0])
    assert simplex.solve().objective == pytest.approx(2.0)
    simplex.set_bounds(0, 0, 0.5)
    assert simplex.solve().objective == pytest.approx(0.5 + 4.5)
    simplex.set_cost(1, 1.0)
    assert simplex.solve().objective == pytest.approx(2.0)
    simplex.set_row_bounds(0, 1.0, np.inf)
    assert simplex.solve().objective == pytest.approx(1.0)
    assert simplex.add_row(-np.inf, 0.25, [1], [1.0]) == 1
    assert simplex.solve().status == "infeasible"
    assert simplex.shape == (2, 2)


def test_a_work_limit_stops_and_goes_on() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 3, (30, 80))
    arguments = rng.integers(1, 20, 80), matrix, 0.0, np.inf, rng.integers(1, 9, 30)
    whole = hetsp.lp.solve(*arguments)
    simplex = hetsp.lp.Simplex(*arguments, work_limit=whole.work // 6)
    solves = 1
    while (result := simplex.solve()).status == "work_limit":
        solves += 1
        assert solves < 100
    assert solves > 2
    assert result.objective == pytest.approx(whole.objective)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (([1.0, np.nan], [[1.0, 1.0]]), "cost of column 1 is nan"),
        (([1.0], [[np.nan]]), "column 0 has nan at 0"),
        (([1.0], [[1.0]], 2.0, 1.0), "column 0 has bounds 2 .. 1"),
        (([1.0], [[1.0]], 0.0, 1.0, [np.nan]), "row 0 has bounds nan"),
        (([1.0, 1.0], [[1.0]]), "matrix has shape (1, 1), must be (1, 2)"),
        (([1.0], [[1.0]], [0.0, 0.0]), "lower has shape (2,), must be (1,)"),
        (([1.0], [1.0]), "matrix has shape (1,)"),
        ((["a"], [[1.0]]), "cost is"),
        (([1.0], ([1.0], [0], [0, 1])), "row_lower or row_upper must be an array"),
        (([1.0], ([1.0], [1], [0, 1]), 0.0, 1.0, [0.0]), "column 0 has an entry at 1, must be in 0..0"),
        (([1.0], ([1.0], [0.5], [0, 1]), 0.0, 1.0, [0.0]), "indices must be integers"),
        (([1.0], ([1.0, 1.0], [0, 0], [0, 2]), 0.0, 1.0, [0.0]), "column 0 has two entries at 0"),
        (([1.0], ([1.0], [0], [0, 2]), 0.0, 1.0, [0.0]), "column starts"),
    ],
)
def test_bad_input_is_named(arguments: tuple, part: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        hetsp.lp.solve(*arguments)
    assert part in str(error.value)
