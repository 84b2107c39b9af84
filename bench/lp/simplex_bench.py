"""Masters of column generation that grow, and random sparse programmes from nothing, against HiGHS on one thread.

Both sides get the same columns in the same rounds and re-solve warm; the generator prices with duals of one reference run, so
that neither side's choice among optimal duals changes what the other is given. HiGHS without presolve, as a warm start runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import highspy
import numpy as np
import scipy.sparse as sparse

import hetsp_ext as hetsp
from bench.support import Comparison, compare, main


@dataclass(frozen=True)
class Round:
    """Columns that join at once: costs (k,), and per column its rows and values."""

    cost: np.ndarray
    rows: list[np.ndarray]
    values: list[np.ndarray]


def generate(rows: int, rounds: int, per_round: int = 10) -> tuple[np.ndarray, list[Round]]:
    """Demands (rows,) and the rounds of a covering master whose columns price out by up to 20 %."""
    rng = np.random.default_rng(rows)
    demand = rng.integers(1, 6, rows) * 1.0
    master = hetsp.lp.Simplex(np.full(rows, 8.0), sparse.identity(rows), row_lower=demand)
    generated = []
    for _ in range(rounds):
        duals = master.solve().duals
        chosen = [np.unique(rng.integers(0, rows, 8)).astype(np.int32) for _ in range(per_round)]
        values = [rng.integers(1, 3, index.size) * 1.0 for index in chosen]
        cost = [max(1.0, duals[i] @ v * rng.uniform(0.8, 1.0)) for i, v in zip(chosen, values, strict=True)]
        generated.append(Round(np.array(cost), chosen, values))
        for c, i, v in zip(cost, chosen, values, strict=True):
            master.add_column(c, i, v)
    return demand, generated


def ours(demand: np.ndarray, rounds: list[Round]) -> float:
    """The objective at the end of all rounds."""
    master = hetsp.lp.Simplex(np.full(demand.size, 8.0), sparse.identity(demand.size), row_lower=demand)._core
    master.solve()
    for one in rounds:
        for cost, index, value in zip(one.cost, one.rows, one.values, strict=True):
            master.add_column(float(cost), 0.0, np.inf, index, value)
        assert master.solve() == "optimal"
    return master.objective


def quiet_highs() -> highspy.Highs:
    """HiGHS on one thread, warm starts unhindered by presolve."""
    highs = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1, "presolve": "off"}.items():
        highs.setOptionValue(name, value)
    return highs


def theirs(demand: np.ndarray, rounds: list[Round]) -> float:
    """The same with HiGHS, columns added one by one as well; the primal method, which suits added columns."""
    highs = quiet_highs()
    rows = demand.size
    for i in range(rows):
        highs.addRow(demand[i], highspy.kHighsInf, 0, np.empty(0, np.int32), np.empty(0))
    for i in range(rows):
        highs.addCol(8.0, 0.0, highspy.kHighsInf, 1, np.array([i], np.int32), np.ones(1))
    highs.run()
    highs.setOptionValue("simplex_strategy", 4)
    for one in rounds:
        for cost, index, value in zip(one.cost, one.rows, one.values, strict=True):
            highs.addCol(float(cost), 0.0, highspy.kHighsInf, index.size, index, value)
        highs.run()
        assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return highs.getInfo().objective_function_value


def cold_ours(matrix: sparse.csc_matrix, cost: np.ndarray, demand: np.ndarray) -> float:
    """The objective of one solve from nothing."""
    return hetsp.lp.solve(cost, matrix, row_lower=demand).objective


def cold_theirs(matrix: sparse.csc_matrix, cost: np.ndarray, demand: np.ndarray) -> float:
    """The same with HiGHS."""
    highs = quiet_highs()
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(cost.size), np.full(cost.size, highspy.kHighsInf)
    lp.row_lower_, lp.row_upper_ = demand, np.full(demand.size, highspy.kHighsInf)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    highs.passModel(lp)
    highs.run()
    return highs.getInfo().objective_function_value


def run(rounds: int) -> Iterator[Comparison]:
    """Checks that both sides agree, then times them in turn."""
    for rows, growths in ((15, 50), (50, 60), (100, 60), (300, 60)):
        demand, generated = generate(rows, growths)
        assert np.isclose(ours(demand, generated), theirs(demand, generated), rtol=1e-7)
        yield compare(
            f"master of {rows} rows, {growths} rounds of 10 columns, warm",
            {"HiGHS": lambda: theirs(demand, generated), "hetsp": lambda: ours(demand, generated)},  # noqa: B023
            rounds=rounds,
        )
    for rows, columns in ((50, 200), (200, 800), (400, 1600)):
        rng = np.random.default_rng(columns)
        matrix = sparse.random(rows, columns, density=6 / rows, format="csc", random_state=rng)
        matrix.data = rng.integers(1, 4, matrix.nnz) * 1.0
        matrix = sparse.hstack([matrix, sparse.identity(rows)], format="csc")  # feasible
        arguments = matrix, rng.integers(1, 50, columns + rows) * 1.0, rng.integers(1, 9, rows) * 1.0
        assert np.isclose(cold_ours(*arguments), cold_theirs(*arguments), rtol=1e-7)
        yield compare(
            f"covering of {rows} rows and {columns + rows} columns, from nothing",
            {"HiGHS": lambda: cold_theirs(*arguments), "hetsp": lambda: cold_ours(*arguments)},  # noqa: B023
            rounds=rounds,
        )


if __name__ == "__main__":
    main(run)
