"""Zeppelin's round times and its ablation on cluster A: TransformerEngine's ring, routing, and its partition in zones."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from ...planner import plan, preset
from .._simulate import simulate
from .lengths import load
from .published import ZEPPELIN_LADDER, ZEPPELIN_ROUND_MS, ZEPPELIN_ROUTED_MS, ZEPPELIN_SPEEDUP
from .report import AutoRow, Cell, Report, auto_row
from .zones import zones_plan

__all__ = ["reproduce"]

# Its timeline has 4096 tokens of a 64K sequence on each GPU, so 16 GPUs: two nodes of cluster A.
GPUS, TOKENS = 16, 65536
PRESET = "zeppelin-a-3b"


def reproduce(data: Path | None, batches: int, progress: Callable[[str], None]) -> Report:
    """A ring round of one sequence, own NIC and routed, and `batches` steps of 64K tokens under four systems."""
    report = Report("Zeppelin", "arXiv 2509.21841, 3B on cluster A (8 A800 and 4 x 200 Gb/s a node)")
    setting = preset(PRESET)
    one = _plan(setting, [TOKENS], "te-cp")
    for column, routing, published in (
        ("own NIC", "own-nic", ZEPPELIN_ROUND_MS),
        ("transfer leg, routed", "all-nics", ZEPPELIN_ROUTED_MS),
    ):
        note = "" if routing == "own-nic" else "5.3x exceeds what 4 NICs can give: part of a round, not all of it"
        report.cells.append(Cell("inter-node round of 64K", column, published, _round_ms(setting, one, routing), "ms", note))

    lengths = load("arxiv", data)
    seconds: dict[str, list[float]] = {}
    for seed in range(batches):
        progress(f"zeppelin step {seed + 1} of {batches}")
        step = lengths.until(TOKENS, TOKENS, seed)
        baseline, partition, best = _plan(setting, step, "te-cp"), _zones(setting, step), _plan(setting, step, "auto")
        for name, made, routing in (
            ("TE CP", baseline, "own-nic"),
            ("routing", baseline, "all-nics"),
            ("routing in turn", baseline, "all-nics-in-turn"),
            ("engine and partition", partition, "own-nic"),
            ("both", partition, "all-nics"),
            ("auto", best, "own-nic"),
        ):
            seconds.setdefault(name, []).append(_seconds(setting, made, routing))
    speedups = {name: [te / own for te, own in zip(seconds["TE CP"], values, strict=True)] for name, values in seconds.items()}
    for name, published in ZEPPELIN_LADDER.items():
        if name not in speedups:
            note = "a layout of its own for the linear modules is not simulated"
            report.cells.append(Cell("over TE CP", name, published, None, "x", note))
            continue
        report.cells.append(Cell("over TE CP", name, published, fmean(speedups[name]), "x"))
        if name == "routing":
            in_turn = fmean(speedups["routing in turn"])
            note = "dispatch, transfer and combination one after the other"
            report.cells.append(Cell("over TE CP", "routing, legs in turn", published, in_turn, "x", note))
        if name == "engine and partition":
            note = "strategy auto of this library in its place, over each rank's own NIC"
            report.cells.append(Cell("over TE CP", "disjoint groups", published, fmean(speedups["auto"]), "x", note))
    report.auto = [
        AutoRow("inter-node round of 64K", note="the time of one message: nothing to plan"),
        auto_row("over TE CP", seconds.pop("auto"), seconds),
    ]
    for name, published in ZEPPELIN_SPEEDUP.items():
        note = "over all models, clusters and data; its cells are published as bars only"
        report.cells.append(Cell("over TE CP", f"{name} of all settings", published, None, "x", note))
    report.assumptions += [
        f"{GPUS} GPUs, steps of {TOKENS} tokens ({batches} of them, means of ratios): the paper's step is not public in full",
        "the partition is reconstructed (reproduce/zones.py), since its pseudo-code is not public in readable form",
        "FLOP/s and NVLink are estimates (docs/cost_model.md); the NIC reaches 96 % of its rate, which the round itself shows",
        lengths.origin,
    ]
    return report


def _plan(setting: Any, lengths: list[int], strategy: str) -> Any:
    return plan(
        setting.sequences(lengths),
        setting.cluster(GPUS, TOKENS),
        setting.cost_model,
        strategy,
        executable=setting.executable,
        exclusive=True,
        synchronisation=setting.synchronisation,
        simulated=True,
    )


def _zones(setting: Any, lengths: list[int]) -> Any:
    """The zones of docs/simulator.md: a ring hides its hops from 2 bytes x FLOP/s / (bytes/s) tokens a rank on."""
    cost = setting.cost_model
    attention_flops = 14.0 * cost.shape.heads * cost.shape.head_dim * cost.shape.layers / cost.seconds_per_pair
    tokens = [cost.shape.bytes * attention_flops / rate for rate in (cost.network.inter_node[0], cost.network.intra_node[0])]
    node = setting.ranks_per_node
    room = setting.tokens_per_rank(GPUS, TOKENS)
    return zones_plan(lengths, setting.sequences(lengths), GPUS, node, room, GPUS * tokens[0], node * tokens[1])


def _seconds(setting: Any, made: Any, routing: str) -> float:
    return simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node, routing=routing).makespan


def _round_ms(setting: Any, made: Any, routing: str) -> float:
    """Milliseconds of a layer's hop in the forward, without its start-up: the time that bytes travel."""
    timeline = simulate(made, setting.cost_model, ranks_per_node=setting.ranks_per_node, routing=routing)
    layers = setting.cost_model.shape.layers
    hops = sorted((end - begin, bytes_) for _, _, begin, end, bytes_ in timeline.transfers)
    start = setting.cost_model.network.inter_node[1]
    return 1e3 * (hops[0][0] / layers - start)
