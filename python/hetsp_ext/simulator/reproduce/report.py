"""A published table beside the simulated one, cell by cell."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Cell", "Report"]


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


@dataclass
class Report:
    """All cells of one paper, and what was assumed to get them."""

    name: str
    source: str
    cells: list[Cell] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries, fit for JSON."""
        cells = [{**asdict(cell), "deviation": cell.deviation} for cell in self.cells]
        return {"name": self.name, "source": self.source, "cells": cells, "assumptions": self.assumptions}

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
        lines += ["", *(f"- {line}" for line in self.assumptions)]
        return "\n".join(lines) + "\n"
