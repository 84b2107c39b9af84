"""Attention on a GPU against torch's own kernels: dense, packed, skewed, a hop of a ring; every head dimension.

    python -m bench.attention.cuda_attention_bench [--rows WORD...] [--budget SECONDS] [--out FILE]

Useful TFLOP/s (cuda_rows.py says what counts), medians of interleaved rounds, each sample one call between CUDA events with
the L2 cache flushed before it; SM clock and power of the time of each row. Results are compared before they are timed.

Rows run in a child process, which is started anew after a row that crashed or hung: an illegal address ends a process's use
of the GPU, but not the table. The result file is rewritten after each row.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.attention.cuda_contenders import LISTS_GIVEN, OURS, Contenders, contenders, difference, kernels_of
from bench.attention.cuda_rows import ROWS, Row
from bench.support import Comparison, describe_machine, render
from bench.support.device_timing import ClockLog, EventSampler, host_sampler
from bench.support.report import case_record, dated
from bench.support.timing import interleaved

BASELINES = ("hetsp, one document", "plain hop", "hetsp, free order", "varlen_attn", "cuDNN SDPA", "flash SDPA", OURS)
# Beyond this one of the two is wrong: 16-bit results of the same formula differ by 0.003 to 0.006 in norm.
MOST_DIFFERENCE = 0.015
MARK = "@row "  # a child's line for its parent
START_SECONDS = 40  # until a child's first row may take as long as every other


def figures(timed: Comparison) -> dict[str, float]:
    """What bars ask for, as far as its contenders were there; ratios are medians of the ratios within a round."""
    found = {"TFLOP/s": timed.rate(OURS, "FLOP") / 1e12}

    def ratio(name: str) -> float:
        return Comparison(timed.case, name, timed.seconds, timed.work).speedup(OURS)

    if "varlen_attn" in timed.seconds:
        found["over varlen_attn"] = ratio("varlen_attn")
    if "hetsp, one document" in timed.seconds:
        found["of one document's rate"] = ratio("hetsp, one document")
    if "plain hop" in timed.seconds:
        found["of a plain hop's time"] = 1 / ratio("plain hop")
    return found


def judged(row: Row, found: dict[str, float]) -> list[dict[str, Any]]:
    """The row's bars, each with what was found and the best level reached."""
    return [
        {**bar.__dict__, "found": found.get(bar.figure)}
        | {"verdict": bar.verdict(found[bar.figure]) if bar.figure in found else "not measured"}
        for bar in row.bars
    ]


def compared(them: Contenders) -> tuple[str, float] | None:
    """The first contender that has to give our result, and how far it is from ours."""
    for name, call in them.calls.items():
        if name != OURS and name not in them.others:
            return name, difference(them.calls[OURS](), call())
    return None


def measure(
    row: Row, rounds: int, row_seconds: float, divide: int, sample: Callable[..., float], device: str
) -> dict[str, Any]:
    """One row; fewer rounds where they would take longer than `row_seconds`, at least 3."""
    problem = row.problem.shrunk(divide)
    them = contenders(problem, row.kind, device)
    begin = time.monotonic()
    kernels = kernels_of(them.calls[OURS], device)
    checked = compared(them)
    for call in them.calls.values():
        sample(call)
    a_round = sum(sample(call) for call in them.calls.values())
    fitting = max(3, min(rounds, int(row_seconds / max(a_round, 1e-9))))
    seconds = interleaved(them.calls, lambda name: sample(them.calls[name]), fitting)
    baseline = next(name for name in BASELINES if name in seconds)
    timed = Comparison(row.name, baseline, seconds, {"FLOP": problem.flop})
    found = figures(timed)
    return case_record(timed) | {
        "problem": {**problem.__dict__, "tokens": sum(problem.lengths)},
        "seconds": seconds,
        "kernels": kernels,
        "absent": them.absent,
        "figures": found,
        "bars": judged(row, found),
        "difference": None if checked is None else {"from": checked[0], "norm": checked[1], "allowed": MOST_DIFFERENCE},
        "span": [begin, time.monotonic()],
    }


def child(options: argparse.Namespace, rows: list[Row]) -> None:
    """Measures the rows in this process and prints a line for each."""
    device = options.device
    sample = EventSampler() if device == "cuda" else host_sampler
    with ClockLog() as clocks:
        for row in rows:
            record = measure(row, options.rounds, options.row_seconds, options.divide, sample, device)
            record["clocks"] = clocks.between(*record.pop("span"))
            print(MARK + json.dumps(record), flush=True)
            if device == "cuda":
                torch.cuda.empty_cache()


def isolated(options: argparse.Namespace, rows: list[Row]) -> Iterator[dict[str, Any]]:
    """Records of the rows, measured by children; a row that ends its child badly gives a record with `failed`."""
    deadline = time.monotonic() + options.budget
    pending = list(rows)
    while pending:
        arguments = ["--child", "--rounds", str(options.rounds), "--row-seconds", str(options.row_seconds)]
        arguments += ["--divide", str(options.divide), "--device", options.device, "--exactly", *(row.name for row in pending)]
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.attention.cuda_attention_bench", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said: list[str] = []
        why, limit = "", START_SECONDS + 3 * options.row_seconds
        for line in lines_of(process, lambda limit_s=limit: min(limit_s, deadline - time.monotonic())):
            if line is None:
                why = "no result within its time"
            elif line.startswith(MARK):
                pending.pop(0)
                said.clear()
                yield json.loads(line[len(MARK) :])
            elif line.strip():
                said.append(line.rstrip())
        process.kill()
        code = process.wait()
        if pending and deadline <= time.monotonic():
            for row in pending:
                yield {"case": row.name, "failed": f"not measured: the budget of {options.budget:g} s is over"}
            return
        if pending:
            yield {"case": pending.pop(0).name, "failed": why or f"exit code {code}: {' | '.join(said[-3:])}"[:1500]}


def lines_of(process: subprocess.Popen[str], patience: Callable[[], float]) -> Iterator[str | None]:
    """Lines of its output as they come; ends with None where none came in `patience()` seconds."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, patience()))
        except queue.Empty:
            yield None
            return
        if line is None:
            return
        yield line


def shown(record: dict[str, Any]) -> str:
    """A row as text."""
    if "failed" in record:
        return f"{record['case']}\n  FAILED: {record['failed']}"
    text = render([Comparison(record["case"], record["baseline"], record["seconds"], record["work"])])
    text += f"\n  kernels: {record['kernels']}"
    for name, why in record["absent"].items():
        text += f"\n  {name}: absent: {why}"
    apart = record["difference"]
    if apart is not None and not apart["norm"] <= apart["allowed"]:
        text += f"\n  WRONG: {apart['norm']:.3g} away from {apart['from']} in norm, {apart['allowed']} allowed"
    for bar in record["bars"]:
        found = "" if bar["found"] is None else f" {bar['found']:.4g}"
        text += f"\n  {bar['figure']}:{found} (must {bar['must']}, strong {bar['strong']}, aim {bar['aim']}): {bar['verdict']}"
    return text


def remarks(record: dict[str, Any]) -> str:
    """Wrong results, other kernels than the best, and how the bars were met."""
    said = []
    apart = record["difference"]
    if apart is not None and not apart["norm"] <= apart["allowed"]:
        said.append(f"WRONG RESULT ({apart['norm']:.2g})")
    if not record["kernels"].startswith(("hopper", "cpu")):
        said.append(record["kernels"].partition(" ")[0])
    for bar in record["bars"]:
        figure = "" if bar["figure"] == "TFLOP/s" or bar["found"] is None else f" ({bar['found']:.3g} {bar['figure']})"
        said.append(bar["verdict"] + figure)
    return "; ".join(said)


def table(records: list[dict[str, Any]]) -> str:
    """One line a row: TFLOP/s of all, our ratio to varlen_attn, clock and power, verdicts."""
    columns = (OURS, LISTS_GIVEN, "varlen_attn", "cuDNN SDPA", "flash SDPA")
    lines = [f"{'TFLOP/s':<44}" + "".join(f"{name:>12}" for name in columns) + f"{'x varlen':>9}{'SM MHz':>8}{'W':>6}  bars"]
    for record in records:
        if "failed" in record:
            lines.append(f"{record['case']:<44}  {record['failed'][:110]}")
            continue
        cells = []
        for name in columns:
            median = record["contenders"].get(name, {}).get("median_seconds")
            cells.append(f"{record['work']['FLOP'] / median / 1e12:>12.1f}" if median else f"{'-':>12}")
        over = record["figures"].get("over varlen_attn")
        clocks = record["clocks"]
        mhz, watts = (f"{clocks[key]['median']:.0f}" if key in clocks else "-" for key in ("sm_mhz", "watts"))
        lines.append(
            f"{record['case']:<44}{''.join(cells)}{f'{over:.2f}' if over else '-':>9}{mhz:>8}{watts:>6}  {remarks(record)}"
        )
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="+", metavar="WORD", default=[""], help="rows whose name holds one of these; default: all"
    )
    parser.add_argument("--rounds", type=int, default=20, help="samples per contender; fewer where a call is very long")
    parser.add_argument("--row-seconds", type=float, default=12.0, help="most device time of a row")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds in all; the rows listed last are left out")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--divide", type=int, default=1, help="lengths divided by this: to see that it runs, not how fast")
    parser.add_argument("--out", type=Path, help="result file, such as bench/results/cuda_attention.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--exactly", nargs="+", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    for name in ("rounds", "divide", "row_seconds", "budget"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}, must be positive")
    if not any(word in row.name for row in ROWS for word in options.rows):
        parser.error(f"--rows {' '.join(options.rows)}: no row has such a name; there are: {'; '.join(r.name for r in ROWS)}")
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    if options.child:
        child(options, [row for row in ROWS if row.name in options.exactly])
        return
    command = ["python", "-m", "bench.attention.cuda_attention_bench", *(sys.argv[1:] if argv is None else argv)]
    record: dict[str, Any] = dated(command, describe_machine())
    records: list[dict[str, Any]] = []
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"no CUDA device: torch {torch.__version__} sees none; --device cpu --divide 64 shows that the benchmark runs")
    for found in isolated(options, [row for row in ROWS if any(word in row.name for word in options.rows)]):
        records.append(found)
        print(shown(found), flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record | {"cases": records}, indent=1) + "\n", encoding="utf-8")
    print("\n" + table(records))
    if options.out:
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
