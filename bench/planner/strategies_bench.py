"""`auto` beside every other strategy, under one cost model with placement: predicted, and simulated.

    python -m bench.planner.strategies_bench --data FOLDER [--batches 40] [--sequences 512] [--out FILE]

FOLDER holds lengths_wikipedia.npz and lengths_github.npz (array `lengths`, tokens of each document, in the order of the set).
A batch is the next so many of them; documents above the maximum length are left out, as FlexSP leaves them. Ranks wait where
the system of the preset waits. Every plan is replayed (`hetsp simulate`: contention, start-ups once a group, overlap where the
preset has it). Three parts, each printed value by value:

  headline   FlexSP's 7B on 64 GPUs: static (Ulysses over all, best fit decreasing at 0.9 of the room) over auto, and auto
             over its certified bound
  presets    per preset and batch the best other strategy over auto, predicted and simulated, each with its ceiling: the best
             other over a bound that no plan can beat. Predicted, that is auto's certified bound; simulated, that of
             simulated_bound.py. A ratio cannot be above its ceiling, whoever plans. Any degree is allowed to all; strategies
             that know powers of two alone keep to them
  degrees    powers of two over any degree, per preset
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import hetsp_ext as hetsp
from bench.planner.simulated_bound import SimulatedBound
from bench.support.machine import describe_machine
from hetsp_ext.planner import preset, presets, strategy_names

GPUS = 64
HEADLINES = (("wikipedia", 384), ("wikipedia", 192), ("github", 384))  # data, maximum length in K
BAR = 1.10  # what the best other should lose to auto; where the ceiling is lower nobody can reach it


def batches(folder: Path, name: str, count: int, sequences: int, kilo: int = 384) -> list[list[int]]:
    with np.load(folder / f"lengths_{name}.npz") as arrays:
        lengths = arrays["lengths"]
    lengths = lengths[lengths <= kilo * 1024]
    count = min(count, len(lengths) // sequences)
    return [lengths[i * sequences : (i + 1) * sequences].tolist() for i in range(count)]


def plan(
    setting: hetsp.Preset, lengths: list[int], kilo: int, strategy: str, degrees: str = "pow2", simulated: bool = False
) -> hetsp.Plan:
    return hetsp.plan(
        setting.sequences(lengths),
        setting.cluster(GPUS, kilo * 1024),
        setting.cost_model,
        strategy,
        executable=setting.executable,
        exclusive=True,
        degrees=degrees,
        synchronisation=setting.synchronisation,
        simulated=simulated,
        overlap=setting.overlaps,
    )


def simulated_seconds(setting: hetsp.Preset, made: hetsp.Plan) -> float:
    timeline = hetsp.simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node, overlap=setting.overlaps)
    return float(timeline.makespan)


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def headline(folder: Path, count: int, sequences: int) -> list[dict[str, object]]:
    rows = []
    for data, kilo in HEADLINES:
        setting = preset("flexsp-7b")
        ours, static, seconds = [], [], []
        replayed: dict[str, list[float]] = {"auto": [], "static": []}
        for lengths in batches(folder, data, count, sequences, kilo):
            ours.append(plan(setting, lengths, kilo, "auto"))
            static.append(plan(setting, lengths, kilo, "static"))
            seconds.append(ours[-1].solve_seconds)
            replayed["auto"].append(simulated_seconds(setting, ours[-1]))
            replayed["static"].append(simulated_seconds(setting, static[-1]))
        gaps = sorted(p.gap for p in ours)
        bound = sum(p.lower_bound for p in ours)
        row = {
            "case": f"{data} {kilo}K, {len(ours)} batches of {sequences}",
            "auto_simulated_s": statistics.fmean(replayed["auto"]),
            "static_simulated_s": statistics.fmean(replayed["static"]),
            "auto_predicted_s": statistics.fmean(p.makespan for p in ours),
            "static_predicted_s": statistics.fmean(p.makespan for p in static),
            "bound_s": bound / len(ours),
            "static_over_auto_simulated": sum(replayed["static"]) / sum(replayed["auto"]),
            "auto_simulated_over_bound": sum(replayed["auto"]) / bound,
            "gap_median": statistics.median(gaps),
            "gap_worst": gaps[-1],
            "solve_seconds_median": statistics.median(seconds),
        }
        print("headline", json.dumps(row), flush=True)
        rows.append(row)
    return rows


def batch_against_strategies(
    setting: hetsp.Preset, simulated_bound: SimulatedBound, lengths: list[int], kilo: int
) -> dict[str, dict[str, Any]]:
    """The best other strategy over auto on one batch, predicted and simulated."""
    auto = plan(setting, lengths, kilo, "auto", "any")
    replayed_auto = simulated_seconds(setting, plan(setting, lengths, kilo, "auto", "any", simulated=True))
    predicted, replayed = {}, {}
    for name in strategy_names():
        if name == "auto":
            continue
        try:
            made = plan(setting, lengths, kilo, name, "any")
        except hetsp.errors.PlanInfeasible:
            continue
        predicted[name], replayed[name] = made.makespan, simulated_seconds(setting, made)
    result: dict[str, dict[str, Any]] = {}
    for kind, ours, others, bound in (
        ("predicted", auto.makespan, predicted, auto.lower_bound),
        ("simulated", replayed_auto, replayed, simulated_bound.seconds(lengths, auto.lower_bound)),
    ):
        best = min(others, key=lambda name: others[name])
        result[kind] = {
            "auto_s": round(ours, 6),
            "best_other": best,
            "ratio": round(others[best] / ours, 6),
            "ceiling": round(others[best] / bound, 6),
            "strategies": {name: seconds / ours for name, seconds in others.items()},
        }
    return result


def over_batches(each: list[dict[str, Any]]) -> dict[str, object]:
    """Geometric means, of a strategy over the batches that it can serve, and each batch by itself."""
    ratios: dict[str, list[float]] = {}
    for one in each:
        for name, ratio in one["strategies"].items():
            ratios.setdefault(name, []).append(ratio)
    return {
        "best_other_over_auto": geometric_mean(one["ratio"] for one in each),
        "ceiling": geometric_mean(one["ceiling"] for one in each),
        "strategies": {name: round(geometric_mean(values), 4) for name, values in ratios.items()},
        "each": [{name: value for name, value in one.items() if name != "strategies"} for one in each],
    }


def against_strategies(folder: Path, count: int, sequences: int) -> list[dict[str, Any]]:
    rows = []
    for setting in presets():
        bound = SimulatedBound(setting, GPUS, 384 * 1024)
        for data in ("wikipedia", "github"):
            steps = batches(folder, data, count, sequences)
            found = [batch_against_strategies(setting, bound, lengths, 384) for lengths in steps]
            row: dict[str, Any] = {"preset": setting.name, "data": data, "synchronisation": setting.synchronisation}
            row |= {kind: over_batches([batch[kind] for batch in found]) for kind in ("predicted", "simulated")}
            print("presets", json.dumps(row), flush=True)
            rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, object]:
    """Over all batches of all presets: the geometric means, how many are slower than another, how many cannot reach the bar."""
    result: dict[str, object] = {}
    for kind in ("predicted", "simulated"):
        each = [one for row in rows for one in row[kind]["each"]]
        result[kind] = {
            "batches": len(each),
            "best_other_over_auto": geometric_mean(one["ratio"] for one in each),
            "ceiling": geometric_mean(one["ceiling"] for one in each),
            "slower_than_another": sum(one["ratio"] < 1.0 for one in each),
            "at_the_bar": sum(one["ratio"] >= BAR for one in each),
            "bar_out_of_reach": sum(one["ceiling"] < BAR for one in each),
        }
    print("summary", json.dumps(result), flush=True)
    return result


def degrees(folder: Path, count: int, sequences: int) -> list[dict[str, object]]:
    rows = []
    for setting in presets():
        if not setting.name.startswith(("flexsp", "llama")):
            continue
        for data in ("wikipedia", "github"):
            gains = []
            for lengths in batches(folder, data, count, sequences):
                pow2, every = (plan(setting, lengths, 384, "auto", which).makespan for which in ("pow2", "any"))
                gains.append(pow2 / every - 1.0)
            row = {"preset": setting.name, "data": data, "pow2_over_any_minus_1": [round(gain, 4) for gain in gains]}
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
    headlines = headline(args.data, args.batches, args.sequences)
    rows = against_strategies(args.data, few, args.sequences)
    record = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": "python -m bench.planner.strategies_bench --data FOLDER "
        f"--batches {args.batches} --sequences {args.sequences}",
        "machine": machine,
        "headline": headlines,
        "summary": summary(rows),
        "presets": rows,
        "degrees": degrees(args.data, few, args.sequences),
    }
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"written: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
