"""ByteScale's ladder on the cost curve and the link times that it publishes."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ..._native import core
from ...planner import Cluster, plan, preset
from .._simulate import figures, simulate
from .byted import draw
from .hdp import balanced_plan, naive_plan, ranks_by_memory, static_plan, units_of
from .published import BYTESCALE_COMMUNICATION, BYTESCALE_LADDER, BYTESCALE_OFFLOAD, BYTESCALE_SECONDS
from .report import AutoRow, Cell, Report, auto_row

__all__ = ["reproduce"]

GPUS, TOKENS, CONTEXT, LAYERS = 1024, 32 << 20, 2 << 20, 32
HIDDEN_AT_64K = 0.5  # the ratio up to which offloading was free at 64K: fixes bytes per second over bytes per token


def reproduce(data: Path | None, batches: int, progress: Callable[[str], None]) -> Report:
    """`batches` steps of 32M tokens on 1024 ranks as each rung plans them, replayed; ratios of mean seconds."""
    report = Report("ByteScale", "arXiv 2502.21231, LLaMA 7B, context 2M, data Byted, 1024 GPUs, 32M tokens a step")
    setting = preset("bytescale-7b")
    cost = setting.cost_model
    room = setting.tokens_per_rank(GPUS, CONTEXT)
    seconds: dict[str, list[float]] = {}
    communication = []
    for seed in range(batches):
        progress(f"bytescale step {seed + 1} of {batches}")
        lengths = draw(TOKENS, seed)
        sequences = setting.sequences(lengths)
        whole = units_of(lengths, room, ranks_by_memory(room))
        mean_load = sum(cost.compute_seconds(sequence) for sequence in sequences) / GPUS
        fewer = units_of(lengths, room, partial(_offloaded_ranks, setting, room, mean_load))
        rungs = {
            "static": static_plan(lengths, sequences, GPUS, CONTEXT // room, room),
            "naive HDP": naive_plan(whole, sequences, GPUS),
            "naive HDP, offload": naive_plan(fewer, sequences, GPUS),
            "balanced HDP": balanced_plan(whole, sequences, cost, GPUS),
            "balanced HDP, offload": balanced_plan(fewer, sequences, cost, GPUS),
        }
        own = setting.cluster(GPUS, CONTEXT)  # with its host memory
        kept = Cluster(GPUS, room, setting.ranks_per_node)
        rungs |= {"auto": _auto(setting, kept, sequences), "auto, offload": _auto(setting, own, sequences)}
        for rung, made in rungs.items():
            timeline = simulate(made, cost, ranks_per_node=setting.ranks_per_node)
            seconds.setdefault(rung, []).append(timeline.makespan)
            if rung == "static":
                communication.append(1.0 - figures(timeline)["busy"])
    mean = {rung: fmean(values) for rung, values in seconds.items()}
    for rung, published in BYTESCALE_SECONDS.items():
        note = "the paper does not say whether with offload" if rung == "balanced HDP" else ""
        report.cells.append(Cell("seconds of a step", rung, published, mean[rung], "s", note))
    ladder = {
        "+ dynamic communication": "naive HDP",
        "+ selective offloading": "naive HDP, offload",
        "+ balance": "balanced HDP, offload",
    }
    for column, published in BYTESCALE_LADDER.items():
        simulated = mean["static"] / mean[ladder[column]] if column in ladder else None
        note = "loading is not simulated" if simulated is None else ""
        report.cells.append(Cell("over static", column, published, simulated, "x", note))
    report.cells.append(Cell("static", "share not computing", BYTESCALE_COMMUNICATION, fmean(communication)))
    report.cells += _offload_cells()
    report.auto = [
        auto_row("seconds of a step", seconds["auto"], {rung: seconds[rung] for rung in BYTESCALE_SECONDS}),
        auto_row("over static", seconds["auto, offload"], {rung: seconds[rung] for rung in ladder.values()}),
        AutoRow("static", note="a share of one system's step, not a step of its own"),
        AutoRow("64K sequence, offload", note="one sequence on given GPUs: nothing to plan"),
    ]
    report.assumptions += [
        f"means over {batches} steps; lengths drawn after the published shares of documents and tokens, not the data itself",
        "GPU and network are not named: compute is the published curve, a hop 1.35 ms and 21 GB/s, which two published times "
        "of a 312K sequence fix (docs/cost_model.md)",
        "static: rings of 256, packs of 2M tokens in the order drawn; hops travel under computation in all rungs",
        "offload: the closed form of planner/offload.h, with the bandwidth at which half of a 64K sequence is hidden; it alone "
        "puts a 2M sequence on 16 ranks, whose work then outlasts the published step, so no rank gets more than the mean load",
        "auto without offload beside the seconds, and offloading what computation hides beside the ladder",
        "backward costs 2.5 times the forward's quadratic term and twice the rest: not published",
    ]
    return report


def _auto(setting: Any, cluster: Any, sequences: Any) -> Any:
    return plan(
        sequences,
        cluster,
        setting.cost_model,
        executable=setting.executable,
        exclusive=True,
        synchronisation=setting.synchronisation,
        simulated=True,
    )


def _forward_seconds(length: int) -> float:
    """Of one layer, by the published curve."""
    kilo = length / 1024
    return 1e-3 * (0.0096 * kilo * kilo + (0.136 + 0.229) * kilo + 0.10)


def _offloaded_ranks(setting: Any, room: int, mean_load: float, length: int) -> int:
    """The fewest ranks that offloading allows and that do not, with this sequence alone, work longer than the mean rank."""
    bytes_per_second = HIDDEN_AT_64K * 65536 / _forward_seconds(65536)  # a byte stands for a token's activations
    _, ranks = core.choose_offload(LAYERS, _forward_seconds(length), float(length), float(LAYERS * room), bytes_per_second)
    (sequence,) = setting.sequences([length])
    balanced = math.ceil(setting.cost_model.compute_seconds(sequence) / mean_load)
    return min(max(int(ranks), balanced), math.ceil(length / room))


def _offload_cells() -> list[Cell]:
    """Past the hidden ratio every tenth costs a fifth of the forward, since half of the copies took all of it."""
    base, _ = BYTESCALE_OFFLOAD[0.0]
    kilo = 64.0
    forward = 0.0096 * kilo * kilo + 0.365 * kilo + 0.10
    both = 3.5 * 0.0096 * kilo * kilo + 3.0 * (0.365 * kilo + 0.10)
    return [
        Cell(
            "64K sequence, offload",
            f"ratio {ratio}",
            published,
            base * (1.0 + max(0.0, ratio / HIDDEN_AT_64K - 1.0) * forward / both),
            "s",
            "given" if ratio == 0.0 else "",
        )
        for ratio, (published, _) in BYTESCALE_OFFLOAD.items()
    ]
