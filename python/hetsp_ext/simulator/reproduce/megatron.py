"""Megatron-Core's dynamic context parallelism: the gain over static rings, with and without its pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...planner import Cluster, plan, preset
from .._simulate import simulate
from .lengths import load
from .published import MEGATRON
from .report import Cell, Report

__all__ = ["reproduce"]

RANKS, RING, CONTEXT, SEQUENCES, STAGES = 64, 8, 65536, 2048, 8


def reproduce(data: Path | None, batches: int, progress: Callable[[str], None]) -> Report:
    """One step of 2048 sequences on 64 ranks of the data x sequence axis, for each data set."""
    report = Report("Megatron dynamic CP", "NVIDIA's developer blog of 2026-01-28, Llama 13B, pipeline 8, context parallel 8")
    setting = preset("llama-13b")
    cluster = Cluster(RANKS, CONTEXT // RING, setting.ranks_per_node)
    for name, (static, dynamic) in MEGATRON.items():
        progress(f"megatron {name}")
        lengths = load(name, data)
        (step,) = lengths.batches(1, SEQUENCES, CONTEXT)
        seconds, piped = {}, {}
        for strategy in ("megatron-static", "megatron-dynamic"):
            made = plan(
                setting.sequences(step),
                cluster,
                setting.cost_model,
                strategy,
                executable=("whole", "ring"),
                exclusive=True,
                degrees="pow2",
                synchronisation="layer",
            )
            seconds[strategy] = simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node).makespan
            piped[strategy] = seconds[strategy] * _bubble(made)
        report.cells += [
            Cell(name, "static", static, None, "TFLOP/s", "GPU, context and data x sequence ranks are not named"),
            Cell(name, "dynamic", dynamic, None, "TFLOP/s", "as above"),
            Cell(name, "gain, one stage", dynamic / static, seconds["megatron-static"] / seconds["megatron-dynamic"], "x"),
            Cell(name, f"gain, {STAGES} stages", dynamic / static, piped["megatron-static"] / piped["megatron-dynamic"], "x"),
        ]
        report.assumptions.append(lengths.origin)
    report.assumptions += [
        f"{RANKS} ranks, {RING} a ring at {CONTEXT} tokens, H100 estimates of preset llama-13b; the blog names none of them",
        f"{STAGES} stages multiply a step of m micro-batches by (m + {STAGES} - 1) / m: stages alike, no interleaving",
    ]
    return report


def _bubble(made: Any) -> float:
    count = len(made.micro_batches)
    return (count + STAGES - 1) / count
