"""A published table beside the simulated one, cell by cell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

__all__ = ["AutoRow", "Cell", "Report", "auto_row"]


@dataclass(frozen=True)
class Cell:
    """One published number. `simulated` is None where it cannot be derived; `note` then says why."""

    row: str
    column: str
    published: float
    simulated: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def deviation(self) -> float | None:
        """simulated / published - 1."""
        return None if self.simulated is None else self.simulated / self.published - 1.0


@dataclass(frozen=True)
class AutoRow:
    """This library's strategy `auto` beside the systems of a row, all simulated on the same steps; or why the row has none.

    `seconds` is auto's mean over the steps, `ratio` the mean of the best printed system over it, `least` the smallest ratio of
    any step, each to the system that is best in that step.
    """

    row: str
    column: str = ""
    seconds: float | None = None
    best: str = ""
    ratio: float | None = None
    least: float | None = None
    note: str = ""


def auto_row(row: str, auto: Sequence[float], systems: Mapping[str, Sequence[float]], column: str = "") -> AutoRow:
    """Seconds of each step: of auto, and of each printed system."""
    means = {name: fmean(seconds) for name, seconds in systems.items()}
    best = min(means, key=lambda name: means[name])
    least = min(min(step) / ours for ours, *step in zip(auto, *systems.values(), strict=True))
    return AutoRow(row, column, fmean(auto), best, means[best] / fmean(auto), least)


@dataclass
class Report:
    """All cells of one paper, auto beside its rows, and what was assumed to get them."""

    name: str
    source: str
    cells: list[Cell] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    auto: list[AutoRow] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries, fit for JSON."""
        cells = [{**asdict(cell), "deviation": cell.deviation} for cell in self.cells]
        auto = [asdict(row) for row in self.auto]
        return {"name": self.name, "source": self.source, "cells": cells, "auto": auto, "assumptions": self.assumptions}

    def __str__(self) -> str:
        rows = max((len(cell.row) for cell in self.cells), default=0)
        columns = max((len(cell.column) for cell in self.cells), default=0)
        lines = [f"{self.name}: {self.source}", ""]
        lines.append(f"{'':{rows}}  {'':{columns}}  published  simulated  deviation")
        for cell in self.cells:
            simulated = "        -          -"
            if cell.simulated is not None and cell.deviation is not None:
                simulated = f"{cell.simulated:9.4g}  {100 * cell.deviation:+8.1f} %"
            unit = f"  {cell.unit}" if cell.unit else ""
            note = f"  ({cell.note})" if cell.note else ""
            lines.append(f"{cell.row:{rows}}  {cell.column:{columns}}  {cell.published:9.4g}  {simulated}{unit}{note}")
        lines += ["", "auto of this library, simulated on the same steps", *self._auto_lines()]
        lines += ["", *(f"- {line}" for line in self.assumptions)]
        return "\n".join(lines) + "\n"

    def _auto_lines(self) -> list[str]:
        names = {id(row): f"{row.row}, {row.column}" if row.column else row.row for row in self.auto}
        width = max((len(name) for name in names.values()), default=0)
        lines = []
        for row in self.auto:
            if row.seconds is None or row.ratio is None:
                lines.append(f"{names[id(row)]:{width}}          -  ({row.note})")
            else:
                note = f"  ({row.note})" if row.note else ""
                lines.append(
                    f"{names[id(row)]:{width}}  {row.seconds:9.4g} s  {row.best} over it {row.ratio:.3f} x, "
                    f"in its worst step {row.least:.3f} x{note}"
                )
        return lines
