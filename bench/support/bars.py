"""Benchmarks that are held to bars: figures per case, some with a bar to reach, printed and written as a result file."""

from __future__ import annotations

import argparse
import json
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .machine import describe_machine
from .report import dated

HOLDS = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass
class Case:
    """Figures of one case; a figure with a bar is met or missed."""

    title: str
    figures: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, value: Any, holds: str | None = None, bar: Any = None) -> Case:
        """`add("ratio", 3.9, ">=", 3.8)`; without a bar for orientation."""
        self.figures[name] = round(value, 4) if isinstance(value, float) else value
        if holds is not None:
            self.bars[name] = {"bar": f"{holds} {bar}", "met": bool(HOLDS[holds](value, bar))}
        return self

    def __str__(self) -> str:
        width = max(map(len, self.figures), default=0)
        lines = [self.title]
        for name, value in self.figures.items():
            bar = self.bars.get(name)
            versus = "" if bar is None else f" | {bar['bar']:>9} | {'met' if bar['met'] else 'MISSED'}"
            lines.append(f"  {name:<{width}} | {value!s:>12}{versus}")
        return "\n".join(lines)


def main_with_bars(run: Callable[[argparse.Namespace], Iterable[Case]], parser: argparse.ArgumentParser) -> None:
    """The command line: cases are shown as they come; --out FILE writes them all."""
    parser.add_argument("--out", type=Path, help="also write a result file, such as bench/results/NAME.json")
    options = parser.parse_args()
    machine = describe_machine()  # before the run, which raises the load itself
    cases = []
    for case in run(options):
        cases.append(case)
        print(case, flush=True)
    missed = [f"{case.title}: {name}" for case in cases for name, bar in case.bars.items() if not bar["met"]]
    print(f"{len(missed)} bars missed" + "".join(f"\n  {each}" for each in missed))
    if options.out:
        write(options.out, cases, sys.argv[1:], machine)


def write(path: Path, cases: Iterable[Case], arguments: Sequence[str], machine: dict[str, object]) -> None:
    command = ["python", "-m", sys.modules["__main__"].__spec__.name, *arguments]
    record = dated(command, machine)
    record["cases"] = [{"case": case.title, "figures": case.figures, "bars": case.bars} for case in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")
