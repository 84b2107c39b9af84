"""Frontier's throughput study: what follows from its own numbers, and what does not."""

from collections.abc import Callable
from pathlib import Path

from .published import FRONTIER, FRONTIER_PEAK, FRONTIER_STRONG, FRONTIER_WEAK
from .report import AutoRow, Cell, Report

__all__ = ["reproduce"]

UNKNOWN = "micro-batches of a pipeline and the split of ranks are not public in a form that fixes the bubble (p - 1) / m"


def reproduce(data: Path | None, batches: int, progress: Callable[[str], None]) -> Report:
    """Throughput from the share of peak; the scaling figures are listed as not derivable. Uses no data."""
    report = Report("Frontier", "arXiv 2312.12705, MI250X")
    for model, (share, teraflops) in FRONTIER.items():
        report.cells.append(Cell(model, "TFLOP/s a GCD", teraflops, share * FRONTIER_PEAK, "TFLOP/s"))
    for column, table in (("strong scaling", FRONTIER_STRONG), ("weak scaling", FRONTIER_WEAK)):
        report.cells += [Cell(setting, column, value, None, "", UNKNOWN) for setting, value in table.items()]
    for row in dict.fromkeys(cell.row for cell in report.cells):
        report.auto.append(AutoRow(row, note="throughput of one system on equal sequences: nothing to plan"))
    report.assumptions.append(
        f"TFLOP/s is the published share of {FRONTIER_PEAK} TFLOP/s: a check of the numbers against each other, no simulation"
    )
    return report
