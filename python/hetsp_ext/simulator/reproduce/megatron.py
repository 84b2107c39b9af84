"""Megatron-Core's dynamic context parallelism: the gain over static rings, with and without its pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...planner import Cluster, plan, preset
from .._simulate import simulate
from .lengths import load
from .published import MEGATRON
from .report import Cell, Report, auto_row

__all__ = ["reproduce"]

RANKS, RING, CONTEXT, SEQUENCES, STAGES = 64, 8, 65536, 2048, 8


def reproduce(data: Path | None, batches: int, progress: Callable[[str], None]) -> Report:
    """One step of 2048 sequences on 64 ranks of the data x sequence axis, for each data set."""
    report = Report("Megatron dynamic CP", "NVIDIA's developer blog of 2026-01-28, Llama 13B, pipeline 8, context parallel 8")
    setting = preset("llama-13b")
    cluster = Cluster(RANKS, CONTEXT // RING, setting.ranks_per_node)
    for name, (static_flops, dynamic_flops) in MEGATRON.items():
        progress(f"megatron {name}")
        lengths = load(name, data)
        (step,) = lengths.batches(1, SEQUENCES, CONTEXT)
        static, dynamic = (_plan(setting, cluster, step, f"megatron-{kind}") for kind in ("static", "dynamic"))
        seconds = {kind: _seconds(setting, made) for kind, made in (("static", static), ("dynamic", dynamic))}
        piped = {kind: seconds[kind] * _bubble(made) for kind, made in (("static", static), ("dynamic", dynamic))}
        ours = _seconds(setting, _plan(setting, cluster, step, "auto"))
        filling = _plan(setting, cluster, step, "auto", STAGES)
        ours_piped = _seconds(setting, filling) * _bubble(filling)
        report.cells += [
            Cell(name, "static", static_flops, None, "TFLOP/s", "GPU, context and data x sequence ranks are not named"),
            Cell(name, "dynamic", dynamic_flops, None, "TFLOP/s", "as above"),
            Cell(name, "gain, one stage", dynamic_flops / static_flops, seconds["static"] / seconds["dynamic"], "x"),
            Cell(name, f"gain, {STAGES} stages", dynamic_flops / static_flops, piped["static"] / piped["dynamic"], "x"),
        ]
        for column, others, own in (("one stage", seconds, ours), (f"{STAGES} stages", piped, ours_piped)):
            report.auto.append(auto_row(name, [own], {kind: [value] for kind, value in others.items()}, column))
        report.assumptions.append(lengths.origin)
    report.assumptions += [
        "parameters are replicated, and all ranks wait after each micro-batch, as its scheduler's rounds do; auto, too",
        "auto has Megatron's kinds and degrees, whole sequences and rings over powers of two, and knows the stages",
        f"{RANKS} ranks, {RING} a ring at {CONTEXT} tokens, H100 estimates of preset llama-13b; the blog names none of them",
        f"{STAGES} stages multiply a step of m micro-batches by (m + {STAGES} - 1) / m: stages alike, no interleaving",
    ]
    return report


def _plan(setting: Any, cluster: Cluster, lengths: list[int], strategy: str, stages: int = 1) -> Any:
    return plan(
        setting.sequences(lengths),
        cluster,
        setting.cost_model,
        strategy,
        executable=("whole", "ring"),
        exclusive=True,
        degrees="pow2",
        synchronisation="micro_batch",
        simulated=True,
        stages=stages,
    )


def _seconds(setting: Any, made: Any) -> float:
    return float(simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node).makespan)


def _bubble(made: Any) -> float:
    count = len(made.micro_batches)
    return (count + STAGES - 1) / count
