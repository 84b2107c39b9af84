"""varlen_attention against scaled_dot_product_attention, a call per sequence or per length, causal; and what each bar asks.

Shapes, tokens per sequence: a 8 x 1024; b 8192, 1024, 512, 256 x 8, 64 x 32; c 8192; d 256 x 32. Heads of q / of k and v:
8/8 and 8/2; head_dim 64, and with 8/8 on one thread also 128; float32 and bfloat16; forward and forward + backward; one
thread, timed by its CPU clock, and (8/8 of 64 only) all threads, timed by the wall clock. `--threads scaling` compares one
thread with two on b.

Options leave out what they do not name; all of it takes about a quarter of an hour on a quiet core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import hetsp_ext as hetsp
from bench.support import Comparison, compare, describe_machine, render
from bench.support.report import case_record

from .contenders import Setting, contenders, faster_gqa, matrix_product

SHAPES = {
    "a": (1024,) * 8,
    "b": (8192, 1024, 512) + (256,) * 8 + (64,) * 32,
    "c": (8192,),
    "d": (32,) * 256,
}
HEADS = {"8/8": (8, 8), "8/2": (8, 2)}
DIMS = (64, 128)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = ("forward", "forward+backward")
LONG = 3e10  # FLOP of a call, about half a second for SDPA: such cases get three rounds
MATRIX = "torch.mm"

# Times faster than the SDPA loop, by dtype and pass, on a, b, c, d at head_dim 64; at 128 a tenth less will do.
FASTER = {
    ("float32", "forward"): (1.9, 1.5, 1.4, 2.0),
    ("bfloat16", "forward"): (3.0, 2.8, 2.5, 3.4),
    ("float32", "forward+backward"): (1.6, 1.4, 1.35, 3.0),
    ("bfloat16", "forward+backward"): (2.2, 2.0, 1.8, 5.0),
}
OF_MATRIX = {"float32": 0.9, "bfloat16": 0.75}  # useful rate over torch.mm's, forward, on b and c
TWO_THREADS = 1.85


@dataclass(frozen=True)
class Case:
    """A setting, by the names that the options and the bars know."""

    shape: str
    heads: str
    dim: int
    dtype: str
    passes: str
    threads: int

    @property
    def title(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.shape} {self.dtype} {self.passes}, heads {self.heads} of {self.dim}, {threads}"

    def setting(self, divide: int = 1) -> Setting:
        lengths = tuple(max(1, n // divide) for n in SHAPES[self.shape])
        return Setting(lengths, *HEADS[self.heads], self.dim, DTYPES[self.dtype], self.passes != "forward")


def bar(case: str, what: str, found: float, asked: float) -> dict[str, Any]:
    return {"case": case, "bar": what, "found": found, "asked": asked, "met": found >= asked}


def bars(case: Case, timed: Comparison, of_matrix: float) -> list[dict[str, Any]]:
    """What hetsp is held to in this case, and what was found."""
    asked = FASTER[case.dtype, case.passes]["abcd".index(case.shape)] * (1 if case.dim == 64 else 0.9)
    found = [bar(case.title, "over the SDPA loop", timed.speedup("hetsp"), asked)]
    if "SDPA bucketed" in timed.seconds:
        rounds = zip(timed.seconds["SDPA bucketed"], timed.seconds["hetsp"], strict=True)
        found.append(bar(case.title, "over SDPA bucketed", median(theirs / ours for theirs, ours in rounds), 1.0))
    if case.passes == "forward" and case.shape in "bc" and case.dim == 64:
        found.append(bar(case.title, f"of {MATRIX}'s rate", of_matrix, OF_MATRIX[case.dtype]))
    return found


def measure(case: Case, rounds: int, divide: int) -> dict[str, Any]:
    """Times one case, prints it, and returns its record."""
    torch.set_num_threads(case.threads)
    setting = case.setting(divide)
    gqa = "as they are" if setting.heads == setting.heads_kv else faster_gqa(setting)
    flop, product = matrix_product(setting.dtype)
    calls = {**contenders(setting, gqa), MATRIX: product}
    clock = time.thread_time if case.threads == 1 else time.perf_counter  # other load on the machine is not a thread's own time
    rounds = min(rounds, 3) if setting.flops > LONG else rounds
    both = compare(case.title, calls, rounds=rounds, clock=clock, work={"FLOP": setting.flops})
    products = both.seconds.pop(MATRIX)
    shares = {
        name: median(setting.flops / own / (flop / theirs) for own, theirs in zip(seconds, products, strict=True))
        for name, seconds in both.seconds.items()
    }
    print(render([both]))
    words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    print(f"  of {MATRIX}'s {flop / median(products) / 1e9:.0f} GFLOP/s: {words}; key heads reach SDPA {gqa}")
    held = bars(case, both, shares["hetsp"])
    show(held)
    return case_record(both) | {
        "threads": case.threads,
        "clock": "CPU" if case.threads == 1 else "wall",
        "of_torch_mm": shares,
        "torch_mm_flop_per_second": flop / median(products),
        "sdpa_key_heads": gqa,
        "bars": held,
    }


def measure_threads(dtype: str, passes: str, rounds: int, divide: int) -> dict[str, Any]:
    """hetsp on b with one thread and with two, by the wall clock."""
    case = Case("b", "8/8", 64, dtype, passes, 2)
    call = contenders(case.setting(divide), "as they are")["hetsp"]

    def with_threads(count: int) -> object:
        torch.set_num_threads(count)
        return call()

    names = {"1 thread": lambda: with_threads(1), "2 threads": lambda: with_threads(2)}
    title = f"b {dtype} {passes}, hetsp, threads"
    timed = compare(title, names, rounds=rounds, work={"FLOP": case.setting(divide).flops})
    print(render([timed]))
    held = [bar(title, "two threads over one", timed.speedup("2 threads"), TWO_THREADS)]
    show(held)
    return case_record(timed) | {"clock": "wall", "bars": held}


def show(held: list[dict[str, Any]]) -> None:
    for each in held:
        word = "met" if each["met"] else "NOT met"
        print(f"  {each['bar']}: {each['found']:.2f}, asked for {each['asked']:.3g}: {word}", flush=True)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    for heads in options.heads:
        for dim in options.dims:
            for threads in sorted({1 if each == "1" else os.cpu_count() or 1 for each in options.threads}):
                if (heads != "8/8" and dim != 64) or (threads > 1 and (heads, dim) != ("8/8", 64)):
                    continue
                for dtype in options.dtypes:
                    for passes in options.passes:
                        for shape in options.shapes:
                            yield Case(shape, heads, dim, dtype, passes, threads)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def choice(name: str, allowed: list[Any], kind: type = str) -> None:
        parser.add_argument(name, nargs="+", type=kind, choices=allowed, default=allowed, help="default: all")

    choice("--shapes", list(SHAPES))
    choice("--heads", list(HEADS))
    choice("--dims", list(DIMS), int)
    choice("--dtypes", list(DTYPES))
    choice("--passes", list(PASSES))
    choice("--threads", ["1", "all", "scaling"])
    parser.add_argument("--rounds", type=int, default=7, help="samples per contender; 3 at most where a call is long")
    parser.add_argument("--quick", action="store_true", help="an eighth of each length: to see that it runs, not how fast")
    parser.add_argument("--out", type=Path, help="result file, such as bench/results/varlen_attention.json")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; at least 1 is needed")
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    machine, divide, before = describe_machine(), 8 if options.quick else 1, torch.get_num_threads()
    machine["cpu_capability"] = hetsp.cpu_capability()
    records = []
    try:
        if set(options.threads) & {"1", "all"}:
            counted = argparse.Namespace(**vars(options) | {"threads": [t for t in options.threads if t != "scaling"]})
            records += [measure(case, options.rounds, divide) for case in cases(counted)]
        if "scaling" in options.threads and "b" in options.shapes:
            rounds = min(options.rounds, 5)
            records += [measure_threads(d, p, rounds, divide) for d in options.dtypes for p in options.passes]
    finally:
        torch.set_num_threads(before)
    held = [each for record in records for each in record["bars"]]
    print(
        f"\n{sum(each['met'] for each in held)} of {len(held)} bars met" + (" (quick: means nothing)" if options.quick else "")
    )
    for each in held:
        if not each["met"]:
            print(f"  NOT met: {each['case']}: {each['bar']}: {each['found']:.2f}, asked for {each['asked']:.3g}")
    if options.out:
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        command = shlex.join(
            ["python", "-m", "bench.attention.varlen_attention_bench", *(sys.argv[1:] if argv is None else argv)]
        )
        record = {"date": date, "command": command, "machine": machine, "cases": records}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"written: {options.out}")


if __name__ == "__main__":
    main()
