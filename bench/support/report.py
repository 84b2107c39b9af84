"""Shows comparisons as a table and writes them as a result file (format: bench/README.md)."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .machine import describe_machine
from .timing import Comparison

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def render(comparisons: Iterable[Comparison]) -> str:
    """One line per contender: time per call, rates, and the speedup over the baseline with its quartiles."""
    lines = []
    for comparison in comparisons:
        lines.append(comparison.case)
        width = max(len(name) for name in comparison.seconds)
        for name in comparison.seconds:
            lower, upper = comparison.spread(name)
            rates = "".join(f" | {_rate(comparison.rate(name, unit), unit):>14}" for unit in comparison.work)
            versus = (
                "baseline" if name == comparison.baseline else f"{comparison.speedup(name):.2f}x [{lower:.2f}, {upper:.2f}]"
            )
            lines.append(f"  {name:<{width}} | {_time(comparison.median(name)):>10}{rates} | {versus}")
    return "\n".join(lines)


def case_record(comparison: Comparison) -> dict[str, object]:
    """A case of a result file: work, rounds, and per contender the median seconds, speedup and quartiles."""
    return {
        "case": comparison.case,
        "baseline": comparison.baseline,
        "work": dict(comparison.work),
        "rounds": len(comparison.seconds[comparison.baseline]),
        "contenders": {
            name: {
                "median_seconds": comparison.median(name),
                "speedup": comparison.speedup(name),
                "speedup_quartiles": list(comparison.spread(name)),
            }
            for name in comparison.seconds
        },
    }


def write(path: Path, comparisons: Iterable[Comparison], command: Sequence[str], machine: dict[str, object]) -> None:
    """Writes the result file: date, command, machine and cases."""
    record = dated(command, machine) | {"cases": [case_record(comparison) for comparison in comparisons]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def dated(command: Sequence[str], machine: dict[str, object]) -> dict[str, object]:
    """What a result file begins with: day (UTC), command and machine."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return {"date": date, "command": shlex.join(command), "machine": machine}


def main(run: Callable[[int], Iterable[Comparison]], argv: Sequence[str] | None = None) -> None:
    """The command line of a benchmark: `run(rounds)` yields comparisons, each shown as soon as it is there.

    Options: --rounds N (default 7), --out FILE to write the result file.
    """
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip() or None)
    parser.add_argument("--rounds", type=int, default=7, help="samples per contender and case")
    parser.add_argument("--out", type=Path, help="also write a result file, such as bench/results/NAME.json")
    options = parser.parse_args(argv)
    machine = describe_machine()  # before the run, which raises the load itself
    done = []
    for comparison in run(options.rounds):
        print(render([comparison]), flush=True)
        done.append(comparison)
    if options.out:
        spec = sys.modules["__main__"].__spec__
        command = ["python", "-m", spec.name] if spec else ["python", sys.argv[0]]
        write(options.out, done, [*command, *(sys.argv[1:] if argv is None else argv)], machine)
        print(f"written: {options.out}")


def _time(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _rate(per_second: float, unit: str) -> str:
    for scale, prefix in _PREFIXES:
        if per_second >= scale:
            return f"{per_second / scale:.3g} {prefix}{unit}/s"
    return f"{per_second:.3g} {unit}/s"
