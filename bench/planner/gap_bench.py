"""Certified gaps of disjoint-group plans within a time limit, instance by instance.

    python -m bench.planner.gap_bench [--instances FILE] [--batches FOLDER] [--fresh SEEDS] [--out FILE]

FILE is JSON, {"instances": [{"name", "kind": "micro_batch" | "batch", "N", "capacity", "model", "lengths"}, ...]}: N ranks,
room for `capacity` tokens on each, model a preset whose cost is used, kind `micro_batch` for all lengths in one. FOLDER holds
lengths_wikipedia.npz: 40 batches of 512 documents up to 384K tokens are planned as well. SEEDS draws that many log-normal
micro-batches (bench/packing/instances.py) for each number of ranks and each fill of their memory in FRESH. Time limits are
0.05 s at 64 ranks, 0.3 s at 1024 and 1 s above for a micro-batch, 0.5 s for a whole batch. Printed: makespan, bound, gap,
seconds to the first plan; medians, 95 % quantiles and the worst last.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import hetsp_ext as hetsp
from bench.packing.instances import crawl, tokens_per_rank
from bench.support.machine import describe_machine
from hetsp_ext.planner import preset

FRESH = {1024: (0.25, 0.4, 0.55, 0.7, 0.8, 0.9), 12288: (0.25, 0.5, 0.7, 0.8, 0.9)}  # ranks: parts of their memory in use
WIKIPEDIA = {"count": 40, "sequences": 512, "longest": 384 * 1024, "N": 64, "model": "flexsp-7b"}


def instances(file: Path | None, folder: Path | None, seeds: int) -> Iterator[dict[str, Any]]:
    if file is not None:
        yield from json.loads(file.read_text(encoding="utf-8"))["instances"]
    yield from fresh(seeds)
    if folder is None:
        return
    with np.load(folder / "lengths_wikipedia.npz") as arrays:
        lengths = arrays["lengths"]
    lengths = lengths[lengths <= WIKIPEDIA["longest"]]
    capacity = preset(WIKIPEDIA["model"]).cluster(WIKIPEDIA["N"], WIKIPEDIA["longest"]).tokens_per_rank
    for i in range(WIKIPEDIA["count"]):
        batch = lengths[i * WIKIPEDIA["sequences"] : (i + 1) * WIKIPEDIA["sequences"]].tolist()
        yield {"name": f"wikipedia.{i}", "kind": "batch", "N": 64, "capacity": capacity, "model": "flexsp-7b", "lengths": batch}


def fresh(seeds: int) -> Iterator[dict[str, Any]]:
    """Log-normal lengths, as many as come before they exceed a part of the memory."""
    for ranks, fills in FRESH.items():
        capacity = tokens_per_rank("7b", ranks)
        for seed in range(seeds):
            lengths = np.array(crawl(ranks + ranks // 2, 1000 * ranks + seed))
            for fill in fills:
                count = int(np.searchsorted(np.cumsum(lengths), fill * ranks * capacity))
                yield {
                    "name": f"fresh{ranks}_{fill}.{seed}",
                    "kind": "micro_batch",
                    "N": ranks,
                    "capacity": capacity,
                    "model": "flexsp-7b",
                    "lengths": lengths[:count].tolist(),
                }


def time_limit(instance: dict[str, Any]) -> float:
    if instance["kind"] == "batch":
        return 0.5
    return 0.05 if instance["N"] <= 64 else 0.3 if instance["N"] <= 1024 else 1.0


def row_of(instance: dict[str, Any], degrees: str) -> dict[str, Any]:
    setting = preset(instance["model"])
    plan = hetsp.plan(
        setting.sequences(instance["lengths"]),
        hetsp.Cluster(instance["N"], instance["capacity"]),
        setting.cost_model,
        executable=("whole", "ulysses"),
        exclusive=True,
        degrees=degrees,
        synchronisation="layer",
        micro_batches=1 if instance["kind"] == "micro_batch" else None,
        time_limit=time_limit(instance),
    )
    return {
        "name": instance["name"],
        "kind": instance["kind"],
        "ranks": instance["N"],
        "sequences": len(instance["lengths"]),
        "degrees": degrees,
        "time_limit_s": time_limit(instance),
        "makespan_s": plan.makespan,
        "lower_bound_s": plan.lower_bound,
        "gap": plan.gap,
        "first_incumbent_s": plan.first_incumbent_seconds,
        "solve_s": plan.solve_seconds,
        "micro_batches": len(plan.micro_batches),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=Path)
    parser.add_argument("--fresh", type=int, default=0, metavar="SEEDS")
    parser.add_argument("--batches", type=Path, metavar="FOLDER")
    parser.add_argument("--degrees", choices=("pow2", "any"), default="pow2")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.instances is None and args.batches is None and args.fresh <= 0:
        parser.error("nothing to plan: give --instances, --batches or --fresh")
    rows = []
    for instance in instances(args.instances, args.batches, args.fresh):
        row = row_of(instance, args.degrees)
        rows.append(row)
        print(
            f"{row['name']:18} {row['ranks']:6} ranks {row['sequences']:6} sequences  {row['makespan_s']:8.4f} s  bound "
            f"{row['lower_bound_s']:8.4f}  gap {100 * row['gap']:6.2f} %  first {1e3 * row['first_incumbent_s']:7.2f} ms  "
            f"all {1e3 * row['solve_s']:6.0f} ms",
            flush=True,
        )
    classes: dict[str, list[float]] = {}
    for row in rows:
        classes.setdefault(f"{row['kind']} on {row['ranks']} ranks", []).append(row["gap"])
    for name, gaps in classes.items():
        print(
            f"{name}: {len(gaps)} instances, gap median {100 * statistics.median(gaps):.2f} %, 95 % within "
            f"{100 * float(np.quantile(gaps, 0.95)):.2f} %, worst {100 * max(gaps):.2f} %"
        )
    if args.out:
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = {
            "machine": describe_machine(),
            "date": when,
            "command": " ".join(["python -m bench.planner.gap_bench", *sys.argv[1:]]),
            "rows": rows,
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
