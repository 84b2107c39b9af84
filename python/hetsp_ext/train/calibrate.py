"""`hetsp calibrate` on one rank: probe steps by the code that `hetsp train` runs, on all ranks at once, and the fit to them."""

import datetime
import os
import platform
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .. import __version__
from ..calibration import RANK_PARTS, MeasuredCost, Measurement, measured_cost, write_cost_model
from ..doctor import cores, memory, processor
from ..errors import InvalidArgument
from ..runqueue import delays_are_known
from .cost import cluster_of, cost_model_of, setting_of
from .model import build_model, model_config
from .options import Options
from .probe import Probe, ProbeSource, probes
from .ranks import Ranks, joined, naming_lost_peers
from .report import Report
from .step import Planner, StepResult, Trainer

__all__ = ["Request", "calibration_table", "run_rank"]

CLOCK = 1e-7  # seconds; what a difference of clocks can tell
QUICK_ROUNDS, ROUNDS = 3, 5
QUICK_TOKENS = 1024  # of a rank: seconds in all, good for a look and for tests
ONE = {
    "pairs": "pair",
    "tokens": "token",
    "sequences": "sequence",
    "micro_batches": "micro-batch",
    "hops": "hop",
    "hop_tokens": "token of a hop",
    "steps": "step",
}
NOISY = 0.25  # spread of equal steps above which the printed summary warns


@dataclass(frozen=True)
class Request:
    """What to measure: of `options` the model, ranks, device and sizes count."""

    options: Options
    out: Path
    quick: bool
    command: Sequence[str]  # as it was typed, for the file

    def probes(self, ranks: int) -> list[Probe]:
        options = self.options
        tokens = max(1, options.batch_tokens // ranks)
        length = options.max_length
        if self.quick:
            tokens, length = min(tokens, QUICK_TOKENS), min(length, QUICK_TOKENS)
        return probes(ranks, length, max(tokens, 1))


def run_rank(request: Request, rank: int) -> None:
    """One rank of a calibration; rank 0 fits, tells and writes."""
    report = Report(rank, as_json=request.options.json)
    try:
        with joined(request.options) as ranks, naming_lost_peers():
            cost = Calibration(request, ranks, report).run()
            if rank == 0:
                write_cost_model(request.out, cost)
                report.record({**cost.record, "parts": cost.parts, "out": str(request.out)}, calibration_table(cost))
                report.say(f"written: {request.out}")
    finally:
        report.done()


@dataclass
class Calibration:
    """See run_rank."""

    request: Request
    ranks: Ranks
    report: Report

    def __post_init__(self) -> None:
        options = self.request.options
        self.dtype = torch.float64 if options.dtype == "float64" else torch.float32
        self.config = model_config(options.model, options.max_length)
        self.model = build_model(self.config, self.dtype, options.seed, device=self.ranks.device)
        self.samples: dict[Probe, list[dict[str, float]]] = {}
        self.counts: dict[Probe, dict[str, float]] = {}
        self.delays: dict[Probe, list[float]] = {}  # share of each step in which other threads had the cores

    def run(self) -> MeasuredCost:
        load = os.getloadavg()[0]
        chosen = self.request.probes(self.ranks.size)
        rounds = QUICK_ROUNDS if self.request.quick else ROUNDS
        self.report.say(f"{len(chosen)} probe steps, {rounds} times each, on {self.ranks.size} ranks at once")
        self.report.progress(len(chosen) * rounds)
        for probe in chosen[:2]:  # allocations and first calls
            self.measure(probe)
        self.samples.clear()
        self.delays.clear()
        for turn in range(rounds):
            # A drift of the machine meets all probes alike, and none always runs after the same one.
            start = turn * len(chosen) // rounds
            for probe in [*chosen[start:], *chosen[:start]]:
                self.measure(probe)
                self.report.advance()
        self.report.done_with_bar()
        measurements = [
            Measurement(probe.name, self.counts[probe], self.samples[probe], self.delays[probe] if delays_are_known() else ())
            for probe in chosen
        ]
        options = self.request.options
        setting = setting_of(self.config, options.dtype, self.ranks.device, self.ranks.size)
        return measured_cost(measurements, setting, self.record(load, rounds))

    def measure(self, probe: Probe) -> None:
        """Runs the step once on all ranks and keeps its seconds by part, the mean over the ranks."""
        options, lengths = self.request.options, probe.lengths(self.ranks.size)
        autocast = torch.bfloat16 if options.dtype == "bfloat16" else None
        # A learning rate of 0 costs the optimizer as much as any other, and keeps the weights ordinary.
        trainer = Trainer(self.model, ProbeSource(lengths), self.ranks, 0.0, autocast)
        compute = torch.bfloat16 if options.dtype == "bfloat16" else self.dtype
        cost_model = cost_model_of(self.config, compute, self.ranks.device)
        planner = Planner(cluster_of(self.ranks.size, sum(lengths)), cost_model, probe.strategy)
        result = trainer.run(0, planner, trace=True)
        own = seconds_by_part(result, self.ranks.rank, probe.shared)
        every: list[dict[str, float]] = [{} for _ in range(self.ranks.size)]
        dist.all_gather_object(every, own)
        self.samples.setdefault(probe, []).append(over_ranks(every))
        self.delays.setdefault(probe, []).append(statistics.mean(result.delay_seconds) / result.measured)
        self.counts[probe] = counts_of(probe, result)

    def record(self, load: float, rounds: int) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.timezone.utc)
        found = {finding.name: finding.detail for finding in [*processor(), *memory()]}
        accelerator = torch.cuda.get_device_name(self.ranks.device) if self.ranks.device.type == "cuda" else "none"
        return {
            "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "command": shlex.join(["hetsp", *self.request.command]),
            "machine": {**found, "cores": cores(), "accelerator": accelerator, "load": round(load, 2)},
            "versions": {"hetsp_ext": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "rounds": rounds,
            "delayed": statistics.mean(chain.from_iterable(self.delays.values())) if delays_are_known() else None,
        }


def seconds_by_part(result: StepResult, rank: int, shared: bool) -> dict[str, float]:
    """This rank's seconds in the parts of calibration/measured.py, other threads' turns on the cores left out.

    What is not attention's own counts as linear.
    """
    attend = sum(event.seconds for event in result.traced if event.kind == "attend")
    exchange = sum(event.seconds for event in result.traced if event.kind in ("post", "wait")) if shared else 0.0
    linear = result.work_seconds[rank] - result.delay_seconds[rank] - attend - exchange
    rest = result.seconds - result.measured - max(result.other_delay_seconds)
    parts = {"attention": attend, "linear": linear, "step": rest} | ({"exchange": exchange} if shared else {})
    return {part: max(seconds, CLOCK) for part, seconds in parts.items()}


def over_ranks(every: Sequence[dict[str, float]]) -> dict[str, float]:
    """Work is the mean; of an exchange the least counts, as who comes early also waits for the others."""
    return {part: (min if part == "exchange" else statistics.mean)(seconds[part] for seconds in every) for part in every[0]}


def counts_of(probe: Probe, result: StepResult) -> dict[str, float]:
    """What a rank did, the mean over the ranks."""
    ranks = len(result.rank_tokens)
    hops = ranks - 1 if probe.shared else 0
    tokens = statistics.mean(result.rank_tokens)
    return {
        "pairs": statistics.mean(result.rank_pairs),
        "tokens": tokens,
        "sequences": probe.count,
        "micro_batches": len(result.plan.micro_batches),
        "hops": hops,
        "hop_tokens": hops * tokens,
        "steps": 1,
    }


def calibration_table(cost: MeasuredCost) -> str:
    """The probes with the errors of the fit, part by part and in all, and the coefficients."""
    by_probe: dict[str, dict[str, dict[str, Any]]] = {}
    for point in cost.record["points"]:
        by_probe.setdefault(point["probe"], {})[point["part"]] = point
    heads = ("measured", "predicted", "error", "spread")
    lines = [f"{'probe':<18}" + "".join(f"{part:>20}" for part in RANK_PARTS) + "".join(f"{head:>11}" for head in heads)]
    errors = []
    for probe in cost.record["probes"]:
        points = [by_probe[probe["probe"]].get(part) for part in RANK_PARTS]
        cells = [f"{milliseconds(point['measured'])} {point['error']:+7.1%}" if point else "-" for point in points]
        errors.append(probe["predicted"] / probe["measured"] - 1.0)
        times = (milliseconds(probe["measured"]), milliseconds(probe["predicted"]))
        row = [*times, f"{errors[-1]:+.1%}", f"{probe['spread']:.0%}"]
        lines.append(f"{probe['probe']:<18}" + "".join(f"{c:>20}" for c in cells) + "".join(f"{t:>11}" for t in row))
    median, largest = statistics.median(map(abs, errors)), max(map(abs, errors))
    spread = statistics.median(probe["spread"] for probe in cost.record["probes"])
    lines.append(
        f"forward and backward: error of the fit median {median:.1%}, largest {largest:.1%}; spread of equal steps {spread:.0%}"
    )
    delayed = cost.record["delayed"]
    if delayed is not None:
        lines.append(f"{delayed:.0%} of the time other programs or threads had the cores; that is not in the figures")
    if spread > NOISY:
        lines.append("equal steps differ much: measure again on a machine that has nothing else to do")
    for part, seconds in cost.parts.items():
        lines.append(f"{part:<10} " + ", ".join(f"{value:.3g} s per {ONE[name]}" for name, value in seconds.items()))
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms"


def require_place(path: Path) -> None:
    """Finds out before the minutes of measuring that the result has a place."""
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidArgument(f"--out {path} is a folder, or its folder does not exist")
