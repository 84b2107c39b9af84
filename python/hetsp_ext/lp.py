"""Linear programmes: `solve()` for one, `Simplex` for one that grows or changes and is solved again. See docs/lp.md.

    minimise cost x   subject to   row_lower <= A x <= row_upper,   lower <= x <= upper

Any bound may be infinite; equal bounds make an equality or a fixed column.
"""

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._native import core
from .errors import InvalidArgument

__all__ = ["Result", "Simplex", "solve"]


@dataclass(frozen=True, eq=False)
class Result:
    """What a solve found. Arrays are float64 copies; only with status "optimal" do they prove each other optimal."""

    status: str  # "optimal", "infeasible", "unbounded", "work_limit" or "numerical"
    objective: float  # cost x
    x: np.ndarray  # (columns,)
    row_activity: np.ndarray  # (rows,) A x
    duals: np.ndarray  # (rows,) at least 0 where the lower bound holds the row, at most 0 where the upper one does
    reduced_costs: np.ndarray  # (columns,) cost - A^T duals
    # "infeasible": (rows,) multipliers y with min of y r over row bounds > max of (A^T y) x over column bounds.
    # "unbounded": (columns,) a direction that no bound ends and along which the cost falls. Else None.
    ray: np.ndarray | None
    iterations: int  # of this and all earlier solves of the same Simplex
    work: int  # matrix and factor entries visited, likewise: the same on every machine


class Simplex:
    """A linear programme that keeps its basis between solves.

    Args:
        cost: (columns,) finite.
        matrix: A, of shape (rows, columns): a scipy.sparse matrix or array, a dense 2-D array, or the triple
            (data, indices, indptr) of its compressed columns.
        lower, upper: (columns,) or one number for all; lower <= upper.
        row_lower, row_upper: (rows,) or one number for all. With a triple, at least one of them must be an array.
        primal_tolerance: how far a value may lie outside a bound, relative to max(1, |bound|); in (0, 0.001].
        dual_tolerance: how far a reduced cost may have the wrong sign, relative to max(1, |cost|); in (0, 0.001].
        work_limit: of one solve, in entries visited, at least 1; None for none. Deterministic, unlike a clock.

    An object is for one thread at a time.

    Raises:
        InvalidArgument: wrong shapes, a NaN, an index out of range or twice in a column, crossed bounds; the message names it.
    """

    def __init__(
        self,
        cost: Any,
        matrix: Any,
        lower: Any = 0.0,
        upper: Any = np.inf,
        row_lower: Any = -np.inf,
        row_upper: Any = np.inf,
        *,
        primal_tolerance: float = 1e-9,
        dual_tolerance: float = 1e-9,
        work_limit: int | None = None,
    ) -> None:
        cost = _floats(cost, "cost")
        if cost.ndim != 1:
            raise InvalidArgument(f"lp: cost has shape {cost.shape}, must have one dimension")
        rows = max((array.size for array in map(np.asarray, (row_lower, row_upper)) if array.ndim == 1), default=None)
        data, indices, indptr, rows = _columns(matrix, rows, cost.size)
        self._core = core.Simplex(
            cost,
            _broadcast(lower, "lower", cost.size),
            _broadcast(upper, "upper", cost.size),
            _broadcast(row_lower, "row_lower", rows),
            _broadcast(row_upper, "row_upper", rows),
            indptr,
            indices,
            data,
            float(primal_tolerance),
            float(dual_tolerance),
            2**63 - 1 if work_limit is None else _integer(work_limit, "work_limit"),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return self._core.rows, self._core.columns

    def solve(self) -> Result:
        """Solves from the present basis, without the interpreter lock."""
        status = self._core.solve()
        s = self._core
        ray = s.ray if status in ("infeasible", "unbounded") else None
        return Result(status, s.objective, s.primal, s.row_activity, s.duals, s.reduced_costs, ray, s.iterations, s.work)

    def add_column(self, cost: float, indices: Any, values: Any, lower: float = 0.0, upper: float = np.inf) -> int:
        """One column more, with `values` (k,) in the rows `indices` (k,); returns its index. The basis stays."""
        return self._core.add_column(cost, lower, upper, _integers(indices, "indices"), _line(values))

    def add_row(self, lower: float, upper: float, indices: Any, values: Any) -> int:
        """One row more, with `values` (k,) in the columns `indices` (k,); returns its index. The basis stays."""
        return self._core.add_row(lower, upper, _integers(indices, "indices"), _line(values))

    def set_bounds(self, column: int, lower: float, upper: float) -> None:
        """New bounds of a column; (0, 0) takes it out of the programme."""
        self._core.set_bounds(_integer(column, "column"), lower, upper)

    def set_row_bounds(self, row: int, lower: float, upper: float) -> None:
        """New bounds of a row."""
        self._core.set_row_bounds(_integer(row, "row"), lower, upper)

    def set_cost(self, column: int, cost: float) -> None:
        """A new cost of a column."""
        self._core.set_cost(_integer(column, "column"), cost)


def solve(
    cost: Any,
    matrix: Any,
    lower: Any = 0.0,
    upper: Any = np.inf,
    row_lower: Any = -np.inf,
    row_upper: Any = np.inf,
    *,
    primal_tolerance: float = 1e-9,
    dual_tolerance: float = 1e-9,
    work_limit: int | None = None,
) -> Result:
    """Solves one linear programme: minimise cost x, row_lower <= A x <= row_upper, lower <= x <= upper.

    Args: those of `Simplex`: cost (columns,), matrix (rows, columns) as scipy.sparse, dense or (data, indices, indptr) by
        columns, bounds (columns,) or (rows,) or one number for all.

    Returns:
        A `Result` with status, objective, x, duals, reduced costs, and a ray that proves "infeasible" or "unbounded".

    Raises:
        InvalidArgument: wrong shapes, a NaN, an index out of range or twice in a column, crossed bounds; the message names it.
    """
    return Simplex(
        cost,
        matrix,
        lower,
        upper,
        row_lower,
        row_upper,
        primal_tolerance=primal_tolerance,
        dual_tolerance=dual_tolerance,
        work_limit=work_limit,
    ).solve()


def _columns(matrix: Any, rows: int | None, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """data, indices, indptr and the number of rows, of whatever form the matrix has."""
    if isinstance(matrix, tuple):
        if len(matrix) != 3:
            raise InvalidArgument(f"lp: matrix is a tuple of {len(matrix)}, must be (data, indices, indptr)")
        if rows is None:
            raise InvalidArgument("lp: with a matrix of (data, indices, indptr), row_lower or row_upper must be an array")
        data, indices, indptr = matrix
        return _line(data), _integers(indices, "indices"), _integers(indptr, "indptr", np.int64), rows
    if hasattr(matrix, "tocsc"):
        csc = matrix.tocsc(copy=True)
        csc.sum_duplicates()
        shape, parts = csc.shape, (csc.data, csc.indices, csc.indptr)
    else:
        dense = _floats(matrix, "matrix")
        if dense.ndim != 2:
            raise InvalidArgument(f"lp: matrix has shape {dense.shape}, must have two dimensions")
        column, row = np.nonzero(dense.T)
        shape = dense.shape
        parts = (dense[row, column], row, np.concatenate(([0], np.cumsum(np.bincount(column, minlength=shape[1])))))
    if shape[1] != columns or (rows is not None and shape[0] != rows):
        raise InvalidArgument(f"lp: matrix has shape {shape}, must be ({shape[0] if rows is None else rows}, {columns})")
    return _line(parts[0]), _integers(parts[1], "indices"), _integers(parts[2], "indptr", np.int64), shape[0]


def _floats(value: Any, name: str) -> np.ndarray:
    try:
        return np.ascontiguousarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument(f"lp: {name} is {value!r}, must be real numbers") from None


def _line(value: Any) -> np.ndarray:
    array = _floats(value, "values")
    if array.ndim != 1:
        raise InvalidArgument(f"lp: values have shape {array.shape}, must have one dimension")
    return array


def _broadcast(value: Any, name: str, size: int) -> np.ndarray:
    array = np.asarray(_floats(value, name))
    if np.ndim(value) == 0:
        return np.full(size, array.item())
    if array.shape != (size,):
        raise InvalidArgument(f"lp: {name} has shape {array.shape}, must be ({size},) or one number")
    return array


def _integers(value: Any, name: str, dtype: Any = np.int32) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidArgument(f"lp: {name} must be integers in one dimension, has shape {array.shape} of {array.dtype}")
    info = np.iinfo(dtype)
    if array.size and not (info.min <= array.min() and array.max() <= info.max):
        raise InvalidArgument(f"lp: {name} holds {array.max()}, must fit in {info.bits} bits")
    return np.ascontiguousarray(array, dtype=dtype)


def _integer(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument(f"lp: {name} is {value!r}, must be an integer") from None
    if not -(2**31) <= number < 2**63:
        raise InvalidArgument(f"lp: {name} is {value!r}, must be an integer below 2**63")
    return number
