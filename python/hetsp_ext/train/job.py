"""The main job on one rank: train under the chosen plan, check if asked, train again under the static plan, tell."""

import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

import hetsp_ext

from ..calibration import read_cost_model
from ..doctor import cores
from ..errors import InvalidArgument
from ..timeline import write_chrome_trace, write_svg
from .cost import cluster_of, cost_model_of, setting_of
from .model import build_model, model_config
from .options import Options
from .ranks import Ranks, joined, naming_lost_peers, threads_per_rank
from .report import Report, step_record, summary_record, summary_table, verify_record
from .step import FittedPrediction, MeasuredPrediction, Planner, Prediction, StepResult, Trainer
from .verify import BARS, Verification, VerificationFailed, verify

__all__ = ["open_documents", "run_rank"]

logger = logging.getLogger("hetsp")

STATIC = "static"


def open_documents(options: Options) -> hetsp_ext.FolderSource:
    """The documents of a run: `--data`, or Python's own standard library."""
    folder = options.data or hetsp_ext.standard_library()
    pattern = options.pattern or ("*" if options.data else "*.py")
    limits = {"max_length": options.max_length, "batch_tokens": options.batch_tokens}
    return hetsp_ext.FolderSource(folder, pattern, seed=options.seed, **limits)


def run_rank(options: Options, rank: int) -> None:
    """One rank of the run, from joining the others to the last file.

    Raises:
        VerificationFailed: on rank 0, at the end, if a difference is above its bar.
    """
    report = Report(rank, as_json=options.json)
    try:
        with joined(options) as ranks, naming_lost_peers():
            verification = Job(options, ranks, report).run()
    finally:
        report.done()
    bar = BARS.get(options.dtype)
    if verification is not None and bar is not None and not verification.largest <= bar:
        raise VerificationFailed(
            f"a relative difference of {verification.largest:.3g} ({verification.worst_gradient}) is above {bar:g}"
        )


@dataclass
class Job:
    """See run_rank."""

    options: Options
    ranks: Ranks
    report: Report

    def __post_init__(self) -> None:
        options = self.options
        self.dtype = torch.float64 if options.dtype == "float64" else torch.float32
        self.config: LlamaConfig = model_config(options.model, options.max_length)
        self.source = open_documents(options)
        self.require_same_documents()
        self.folder = self.output_folder() if self.ranks.rank == 0 else Path()
        self.measured = None if options.cost_model is None else read_cost_model(options.cost_model)
        self.require_measured_for_this()
        self.prediction: Prediction = FittedPrediction() if self.measured is None else MeasuredPrediction(self.measured)
        self.verification: Verification | None = None

    def run(self) -> Verification | None:
        self.introduce()
        self.report.progress(self.options.steps * (1 if self.options.plan == STATIC else 2))
        trainer = self.trainer()
        self.write_timeline(self.train(trainer, self.options.plan))
        if self.ranks.rank == 0:
            trainer.model.save_pretrained(self.folder / "model")
        if self.options.plan != STATIC:
            # The same batches from the same initial weights: the losses of both plans must agree, and the times may differ.
            self.train(self.trainer(), STATIC)
        self.conclude()
        return self.verification

    def trainer(self) -> Trainer:
        model = build_model(self.config, self.dtype, self.options.seed, device=self.ranks.device)
        autocast = torch.bfloat16 if self.options.dtype == "bfloat16" else None
        return Trainer(model, self.source, self.ranks, self.options.learning_rate, autocast)

    def train(self, trainer: Trainer, strategy: str) -> StepResult:
        """All steps under one plan; returns the last."""
        memory = self.options.memory_tokens or self.options.batch_tokens
        cluster = cluster_of(self.ranks.size, memory)
        compute = torch.bfloat16 if self.options.dtype == "bfloat16" else self.dtype
        planner = (
            Planner(cluster, cost_model_of(self.config, compute, self.ranks.device), strategy)
            if self.measured is None
            else Planner(cluster, self.measured.cost_model, strategy, self.measured.seconds_per("sequences"))
        )
        chosen = strategy == self.options.plan
        for step in range(self.options.steps):
            check = (
                partial(self.verify, trainer.model)
                if chosen and step == 0 and self.options.verify and self.ranks.rank == 0
                else None
            )
            trace = chosen and step == self.options.steps - 1
            result = trainer.run(step, planner, trace=trace, before_update=check)
            self.prediction.fit(result)
            self.report.step(step_record(result, strategy, self.prediction))
        return result

    def verify(self, model: LlamaForCausalLM, result: StepResult) -> None:
        reference = build_model(self.config, self.dtype, self.options.seed, attention="sdpa", device=self.ranks.device)
        documents = hetsp_ext.StepSequences(self.source, result.step)
        logger.info("computing step 1 again on one rank, one document at a time, with PyTorch's sdpa attention")
        found = verify(model, reference, documents, result.plan, result.loss)
        self.verification = found
        self.report.record(
            verify_record(found),
            f"verify  degrees {found.degrees}  relative difference of the loss {found.loss_relative_difference:.1e}, "
            f"of {found.gradients_compared} gradients {found.max_gradient_relative_difference:.1e} {found.worst_gradient}",
        )

    def require_measured_for_this(self) -> None:
        """A cost model of another model, precision or device would predict plausible nonsense."""
        if self.measured is None:
            return
        own = setting_of(self.config, self.options.dtype, self.ranks.device, self.ranks.size)
        differences = self.measured.setting.differences(own)
        if differences:
            raise InvalidArgument(
                f"--cost-model {self.options.cost_model} was measured for another job: {'; '.join(differences)}"
            )
        ranks, threads = self.measured.setting.ranks, self.measured.setting.threads
        if (ranks, threads) != (own.ranks, own.threads):
            self.report.say(
                f"the cost model was measured with {ranks} ranks of {threads} threads at once; this run has {own.ranks} of "
                f"{own.threads}, so its predictions may be off"
            )

    def require_same_documents(self) -> None:
        own = self.source.fingerprint()
        every: list[str] = [""] * self.ranks.size
        dist.all_gather_object(every, own)
        others = [rank for rank, fingerprint in enumerate(every) if fingerprint != every[0]]
        if others:
            raise InvalidArgument(f"ranks {others} see other files in {str(self.source.folder)!r} than rank 0")

    def output_folder(self) -> Path:
        folder = self.options.out or next_free(Path("runs"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"--out {str(folder)!r} cannot be made: {error.strerror}") from error
        self.report.keep_in(folder)
        return folder

    def introduce(self) -> None:
        options, source, size = self.options, self.source, self.ranks.size
        parameters = sum(p.numel() for p in build_model(self.config, self.dtype, options.seed).parameters())
        asked = {
            key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items() if key != "verify"
        }
        counts = {name: getattr(source, name) for name in ("files", "files_cut", "files_passed_over", "documents", "tokens")}
        record = {
            "run": asked | {"ranks": size, "device": self.ranks.device.type, "parameters": parameters, "documents": counts}
        }
        self.report.record(record)
        self.report.say(
            f"{size} ranks on {self.ranks.device.type}, model {options.model} with {parameters:,} parameters, {options.dtype}\n"
            f"{source.files:,} files of {str(source.folder)!r}: {source.documents:,} documents, {source.tokens:,} tokens; "
            f"{source.files_cut:,} files cut at {source.max_length:,} tokens, {source.files_passed_over:,} empty or binary"
        )
        if self.ranks.device.type == "cpu" and size * threads_per_rank(size) > cores():
            self.report.say(f"{size} ranks share {cores()} cores: measured times include waits for a core")
        self.report.say(
            "predictions are the cost model's times one factor, fitted to step 1"
            if self.measured is None
            else f"predictions are those of {self.options.cost_model}, measured before"
        )

    def write_timeline(self, last: StepResult) -> None:
        every: list[list] | None = [[] for _ in range(self.ranks.size)] if self.ranks.rank == 0 else None
        dist.gather_object(last.events, every)
        if every is None:
            return
        write_chrome_trace(self.folder / "timeline.json", every)
        try:
            title = f"step {last.step + 1}, plan {self.options.plan}: {last.plan.one_line()}"
            write_svg(self.folder / "timeline.svg", every, title)
        except ImportError as error:
            logger.warning("no timeline.svg: matplotlib is absent (%s); timeline.json has the same events", error)

    def conclude(self) -> None:
        if not self.report.speaks:
            return
        rows = [
            summary_record(strategy, self.report.steps(strategy)) for strategy in dict.fromkeys((self.options.plan, STATIC))
        ]
        self.report.done_with_bar()
        self.report.say("\nthe same batches from the same initial weights")
        self.report.say(summary_table(rows))
        for row in rows:
            self.report.record(row)
        self.report.record(
            {"out": str(self.folder)}, f"\nmodel, metrics.jsonl, timeline.svg and timeline.json are in {self.folder}"
        )


def next_free(parent: Path) -> Path:
    taken = {path.name for path in parent.glob("train-*")} if parent.is_dir() else set()
    return next(parent / name for number in range(1, len(taken) + 2) if (name := f"train-{number}") not in taken)
