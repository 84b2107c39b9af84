"""Predicted against measured seconds of `hetsp train`, on documents that the calibration never saw.

    python -m bench.train.prediction_bench [--rounds N] [--seed N] [--cost-model FILE] [--out FILE]

Calibrates (probes are random bytes of equal lengths), or takes FILE; then runs `hetsp train --ranks 2` on the standard
library's files with other seeds, lengths and plans, and compares every step. Beside it stands the spread of equal steps: a
folder whose files are one batch, trained again and again. No prediction can be better than that.

The first step of a run warms up (allocations, first calls): it is listed and not counted. A step in which other programs had
the cores for more than DISTURBED of its time is counted apart, whatever its error. Before each run the benchmark waits until
the others use less than a tenth of a core, in all for at most --patience seconds. Where they never do, `own time` is all there
is: the computation of the busiest rank, other programs' turns left out, and the wait of the rank that waited least.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.support import describe_machine

RANKS = 2
STEPS = 4
DISTURBED = 0.03
QUIET_CORES = 0.1
SIZES = ["--max-length", "16384", "--batch-tokens", "32768"]
KINDS = {
    "forward and backward": ("predicted", "measured"),
    "whole step": ("step_predicted", "step_measured"),
    "own time of forward and backward": ("predicted", "own"),
}
# Each also runs its batches under `static`.
JOBS = {
    "auto, documents to 16384": [*SIZES, "--plan", "auto"],
    "auto, documents to 4096": ["--max-length", "4096", "--batch-tokens", "32768", "--plan", "auto"],
    "auto, half a batch": ["--max-length", "8192", "--batch-tokens", "16384", "--plan", "auto"],
    "auto, micro-batches": ["--max-length", "4096", "--batch-tokens", "32768", "--memory-tokens", "6000", "--plan", "auto"],
    "data-parallel, documents to 8192": ["--max-length", "8192", "--batch-tokens", "32768", "--plan", "data-parallel"],
}
# One batch of unequal documents, a folder of its own: every step trains on all of it.
EQUAL_STEPS = [9000, 7001, 5003, 4000, 3001, 2003, 1000, 500, 260]
EQUAL_REPEATS = 10


def hetsp(*arguments: str) -> list[dict[str, Any]]:
    """Runs the command with --json and returns its records."""
    command = [sys.executable, "-m", "hetsp_ext", *arguments, "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} ended with status {run.returncode}:\n{run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def busy_cores(seconds: float = 1.0) -> float:
    """Cores that run anything at all, while this process sleeps; 0 where /proc/stat does not say."""

    def busy() -> float:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return 0.0
        user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

    begin = busy()
    time.sleep(seconds)
    return (busy() - begin) / seconds


@dataclass
class Patience:
    """Seconds that may still be spent on waiting for a quiet machine, over all runs."""

    seconds: float

    def wait(self) -> float:
        """Returns the cores that others use, when they are few or the patience is at its end."""
        begin = time.monotonic()
        while (cores := busy_cores()) >= QUIET_CORES and time.monotonic() - begin < self.seconds:
            pass
        self.seconds -= time.monotonic() - begin
        return cores


def step_of(record: dict[str, Any], case: str, others: float) -> dict[str, Any]:
    return {
        "case": case,
        "plan": record["plan"],
        "step": record["step"],
        "groups": record["groups"],
        "tokens": record["tokens"],
        "predicted": record["predicted_seconds"],
        "measured": record["measured_seconds"],
        "own": own_seconds(record),
        "step_predicted": record["predicted_step_seconds"],
        "step_measured": record["seconds"],
        "delayed": max(record["rank_delay_seconds"]) / record["measured_seconds"],
        "others_before": round(others, 2),
    }


def own_seconds(record: dict[str, Any]) -> float:
    """Forward and backward without other programs' turns: a rank that comes early waits for the others' turns, too."""
    ranks = zip(record["rank_work_seconds"], record["rank_delay_seconds"], record["rank_wait_seconds"], strict=True)
    return max(work - delay - wait for work, delay, wait in ranks) + min(record["rank_wait_seconds"])


def train(case: str, arguments: Sequence[str], cost: Path, patience: Patience) -> list[dict[str, Any]]:
    """One run of the job; its steps."""
    others = patience.wait()
    with tempfile.TemporaryDirectory() as out:
        fixed = ["--ranks", str(RANKS), "--cost-model", str(cost), "--out", out]
        records = hetsp("train", *fixed, *arguments)
    steps = [step_of(record, case, others) for record in records if "step" in record]
    for step in steps:
        print(line(step), flush=True)
    return steps


def equal_steps(cost: Path, patience: Patience) -> list[dict[str, Any]]:
    """The same documents in every step, under both plans."""
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(0)
        for index, size in enumerate(EQUAL_STEPS):
            (Path(folder) / f"{index}.txt").write_bytes(bytes(draw.randrange(32, 127) for _ in range(size)))
        batch = ["--max-length", "16384", "--batch-tokens", str(sum(EQUAL_STEPS))]
        arguments = ["--data", folder, *batch, "--steps", str(EQUAL_REPEATS)]
        return train("equal steps", arguments, cost, patience)


def line(step: dict[str, Any]) -> str:
    error, whole = step["predicted"] / step["measured"] - 1, step["step_predicted"] / step["step_measured"] - 1
    own = step["predicted"] / step["own"] - 1
    return (
        f"{step['case']:<32} {step['plan']:<13} {step['step']:>2}  {step['groups']:<10} predicted {step['predicted']:.3f} s  "
        f"measured {step['measured']:.3f} s  {error:+6.1%}  whole step {whole:+6.1%}  own time {own:+6.1%}  "
        f"delayed {step['delayed']:4.0%}"
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def errors_of(steps: Iterable[dict[str, Any]], kind: str) -> dict[str, float] | None:
    """Median and 95th percentile of |predicted / measured - 1|, and the median with its sign."""
    predicted, measured = KINDS[kind]
    signed = [step[predicted] / step[measured] - 1 for step in steps]
    if not signed:
        return None
    absolute = [abs(error) for error in signed]
    found = {"steps": len(signed), "median": statistics.median(absolute), "p95": quantile(absolute, 0.95)}
    return found | {"largest": max(absolute), "signed_median": statistics.median(signed)}


def spread_of(steps: Sequence[dict[str, Any]], measured: str = "measured") -> dict[str, dict[str, float]]:
    """Per plan how far equal steps are from their own median: what a perfect prediction would show."""
    found = {}
    for plan in sorted({step["plan"] for step in steps}):
        seconds = [step[measured] for step in steps if step["plan"] == plan]
        middle = statistics.median(seconds)
        away = [abs(each / middle - 1) for each in seconds]
        found[plan] = {
            "steps": len(seconds),
            "median": statistics.median(away),
            "p95": quantile(away, 0.95),
            "largest": max(away),
        }
    return found


def summary_of(steps: Sequence[dict[str, Any]], equal: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counted = [step for step in steps if step["step"] > 1]
    quiet = [step for step in counted if step["delayed"] <= DISTURBED]
    equal = [step for step in equal if step["step"] > 1]
    return {
        "undisturbed": {kind: errors_of(quiet, kind) for kind in KINDS},
        "all": {kind: errors_of(counted, kind) for kind in KINDS},
        "first steps": {"whole step": errors_of([step for step in steps if step["step"] == 1], "whole step")},
        "equal steps, undisturbed": spread_of([step for step in equal if step["delayed"] <= DISTURBED]),
        "equal steps, all": spread_of(equal),
        "equal steps, own time": spread_of(equal, "own"),
        "delayed": statistics.mean(step["delayed"] for step in counted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each job, each with a seed of its own")
    parser.add_argument("--seed", type=int, default=100, help="of the first run's documents; the others count on from it")
    parser.add_argument("--cost-model", type=Path, help="a file of hetsp calibrate (default: calibrate first)")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for a quiet machine, over all runs")
    parser.add_argument("--out", type=Path, help="also write a result file, such as bench/results/prediction.json")
    options = parser.parse_args()
    machine, patience = describe_machine(), Patience(options.patience)
    with tempfile.TemporaryDirectory() as folder:
        cost = options.cost_model or Path(folder) / "cost_model.json"
        if options.cost_model is None:
            print(f"calibrating; others use {patience.wait():.1f} cores", flush=True)
            hetsp("calibrate", "--ranks", str(RANKS), *SIZES, "--out", str(cost))
        calibration = json.loads(cost.read_text(encoding="utf-8"))
        steps, equal = [], []
        for turn in range(options.rounds):
            for number, (case, arguments) in enumerate(JOBS.items()):
                seed = str(options.seed + 10 * turn + number)
                steps += train(case, [*arguments, "--seed", seed, "--steps", str(STEPS)], cost, patience)
            equal += equal_steps(cost, patience)
    summary = summary_of(steps, equal)
    print(json.dumps(summary, indent=2))
    if options.out:
        record = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "command": shlex.join(["python", "-m", "bench.train.prediction_bench", *sys.argv[1:]]),
            "machine": machine,
            "summary": summary,
            "calibration": {name: calibration[name] for name in ("date", "delayed", "rounds", "parts", "probes")},
            "cases": [*steps, *equal],
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
