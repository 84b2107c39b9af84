"""Makespans of `auto` beside every other strategy, under one cost model: predictions, not runs.

    python -m bench.planner.strategies_bench --data FOLDER [--batches 40] [--sequences 512] [--out FILE]

FOLDER holds lengths_wikipedia.npz and lengths_github.npz (array `lengths`, tokens of each document, in the order of the set).
A batch is the next so many of them; documents above the maximum length are left out, as FlexSP leaves them. Three parts, each
printed value by value:

  headline   FlexSP's 7B on 64 GPUs: static (Ulysses over all, best fit decreasing at 0.9 of the room) over auto, and auto
             over its certified bound
  presets    per preset the best other strategy of each batch over auto, and each strategy's mean
  degrees    powers of two over any degree, per preset
"""

import argparse
import json
import math
import statistics
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

import hetsp_ext as hetsp
from bench.support.machine import describe_machine
from hetsp_ext.planner import preset, presets, strategy_names

KINDS = ("whole", "ulysses", "ring", "gather")
GPUS = 64
HEADLINES = (("wikipedia", 384), ("wikipedia", 192), ("github", 384))  # data, maximum length in K


def batches(folder: Path, name: str, count: int, sequences: int, kilo: int = 384) -> list[list[int]]:
    with np.load(folder / f"lengths_{name}.npz") as arrays:
        lengths = arrays["lengths"]
    lengths = lengths[lengths <= kilo * 1024]
    count = min(count, len(lengths) // sequences)
    return [lengths[i * sequences : (i + 1) * sequences].tolist() for i in range(count)]


def plan(setting: object, lengths: list[int], kilo: int, strategy: str, degrees: str = "pow2") -> hetsp.Plan:
    return hetsp.plan(
        setting.sequences(lengths),  # type: ignore[attr-defined]
        setting.cluster(GPUS, kilo * 1024),  # type: ignore[attr-defined]
        setting.cost_model,  # type: ignore[attr-defined]
        strategy,
        executable=KINDS,
        exclusive=True,
        degrees=degrees,
        synchronisation="layer",
    )


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def headline(folder: Path, count: int, sequences: int) -> list[dict[str, object]]:
    rows = []
    for data, kilo in HEADLINES:
        setting = preset("flexsp-7b")
        ours, static, seconds = [], [], []
        for lengths in batches(folder, data, count, sequences, kilo):
            ours.append(plan(setting, lengths, kilo, "auto"))
            static.append(plan(setting, lengths, kilo, "static"))
            seconds.append(ours[-1].solve_seconds)
        gaps = sorted(p.gap for p in ours)
        row = {
            "case": f"{data} {kilo}K, {len(ours)} batches of {sequences}",
            "auto_s": statistics.fmean(p.makespan for p in ours),
            "static_s": statistics.fmean(p.makespan for p in static),
            "bound_s": statistics.fmean(p.lower_bound for p in ours),
            "static_over_auto": sum(p.makespan for p in static) / sum(p.makespan for p in ours),
            "auto_over_bound": sum(p.makespan for p in ours) / sum(p.lower_bound for p in ours),
            "gap_median": statistics.median(gaps),
            "gap_worst": gaps[-1],
            "solve_seconds_median": statistics.median(seconds),
        }
        print("headline", json.dumps(row), flush=True)
        rows.append(row)
    return rows


def against_strategies(folder: Path, count: int, sequences: int) -> list[dict[str, object]]:
    rows = []
    others = [name for name in strategy_names() if name != "auto"]
    for setting in presets():
        for data in ("wikipedia", "github"):
            ratios: dict[str, list[float]] = {}
            best = []
            for lengths in batches(folder, data, count, sequences):
                ours = plan(setting, lengths, 384, "auto").makespan
                times = {}
                for name in others:
                    try:
                        times[name] = plan(setting, lengths, 384, name).makespan / ours
                    except hetsp.errors.PlanInfeasible:
                        continue
                for name, ratio in times.items():
                    ratios.setdefault(name, []).append(ratio)
                best.append(min((ratio, name) for name, ratio in times.items()))
            row = {
                "preset": setting.name,
                "data": data,
                "best_other_over_auto": geometric_mean([ratio for ratio, _ in best]),
                "each": [[round(ratio, 4), name] for ratio, name in best],
                "strategies": {name: round(geometric_mean(values), 4) for name, values in ratios.items()},
            }
            print("presets", json.dumps(row), flush=True)
            rows.append(row)
    return rows


def degrees(folder: Path, count: int, sequences: int) -> list[dict[str, object]]:
    rows = []
    for name in ("flexsp-7b", "flexsp-30b", "llama-7b", "llama-70b"):
        for data in ("wikipedia", "github"):
            gains = []
            for lengths in batches(folder, data, count, sequences):
                setting = preset(name)
                pow2, every = (plan(setting, lengths, 384, "auto", which).makespan for which in ("pow2", "any"))
                gains.append(pow2 / every - 1.0)
            row = {"preset": name, "data": data, "pow2_over_any_minus_1": [round(gain, 4) for gain in gains]}
            print("degrees", json.dumps(row), flush=True)
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--batches", type=int, default=40, help="of the headline; the other parts take a tenth (default: 40)")
    parser.add_argument("--sequences", type=int, default=512, help="of a batch (default: 512)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args()
    machine = describe_machine()
    few = max(1, args.batches // 10)
    record = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": "python -m bench.planner.strategies_bench --data FOLDER "
        f"--batches {args.batches} --sequences {args.sequences}",
        "machine": machine,
        "headline": headline(args.data, args.batches, args.sequences),
        "presets": against_strategies(args.data, few, args.sequences),
        "degrees": degrees(args.data, few, args.sequences),
    }
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"written: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
