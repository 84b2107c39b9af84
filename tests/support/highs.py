"""HiGHS as an oracle for linear programmes, on one thread: a second model with another thread count fails at once."""

from typing import Any

import numpy as np
import pytest

STATUS = {"kOptimal": "optimal", "kInfeasible": "infeasible", "kUnbounded": "unbounded"}


def highs_model(cost: Any, matrix: Any, lower: Any, upper: Any, row_lower: Any, row_upper: Any, **options: Any) -> Any:
    """A loaded `highspy.Highs`; `matrix` is a scipy.sparse matrix. Skips the test where highspy is absent."""
    highspy = pytest.importorskip("highspy", reason="highspy is not installed: requirements-dev.txt has it")
    csc = matrix.tocsc()
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = csc.shape
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = np.asarray(cost, float), np.asarray(lower, float), np.asarray(upper, float)
    lp.row_lower_, lp.row_upper_ = np.asarray(row_lower, float), np.asarray(row_upper, float)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = csc.indptr, csc.indices, csc.data
    highs = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1, **options}.items():
        highs.setOptionValue(name, value)
    assert highs.passModel(lp) != highspy.HighsStatus.kError
    return highs


def run_highs(highs: Any) -> tuple[str, float]:
    """Status in our words ("other" for what has none) and objective."""
    highs.run()
    status = str(highs.getModelStatus()).rpartition(".")[2]
    return STATUS.get(status, "other"), highs.getInfo().objective_function_value
