"""The main job on one rank: train under the chosen plan, check if asked, train again under the static plan, tell.

With checkpoints each of these two phases can be gone on with: see run_state.py for what they hold beside the trainer.
"""

import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

import hetsp_ext

from ..calibration import read_cost_model
from ..doctor import cores
from ..errors import CheckpointError, InvalidArgument
from ..timeline import write_chrome_trace, write_svg
from .checkpoints import Checkpoints, require_folder, require_no_checkpoints, saved_run
from .cost import cluster_of, cost_model_of, rates_of, setting_of
from .model import build_model, model_config
from .options import STATIC, Options
from .ranks import Ranks, joined, naming_lost_peers, threads_per_rank
from .report import (
    Report,
    checkpoints_line,
    checkpoints_record,
    resumed_line,
    step_record,
    summary_record,
    summary_table,
    verify_record,
)
from .run_state import RunState, cost_state, identity_of, require_same_run
from .step import FittedPrediction, MeasuredPrediction, Planner, Prediction, StepResult, Trainer
from .verify import BARS, Verification, VerificationFailed, verify

__all__ = ["open_documents", "require_resumable", "run_rank"]

logger = logging.getLogger("hetsp")


def open_documents(options: Options) -> hetsp_ext.FolderSource:
    """The documents of a run: `--data`, or Python's own standard library."""
    folder = options.data or hetsp_ext.standard_library()
    pattern = options.pattern or ("*" if options.data else "*.py")
    limits = {"max_length": options.max_length, "batch_tokens": options.batch_tokens}
    return hetsp_ext.FolderSource(folder, pattern, seed=options.seed, **limits)


def require_resumable(options: Options, config: LlamaConfig, source: hetsp_ext.FolderSource) -> RunState | None:
    """The state of the run that `--resume` goes on with; None where it begins.

    Raises:
        InvalidArgument: the checkpoints are of another run, by which options, or of one that is not to be resumed.
    """
    if options.checkpoint_dir is None:
        return None
    require_folder(options.checkpoint_dir)
    if not options.resume:
        require_no_checkpoints(options.checkpoint_dir)
        return None
    saved = saved_run(options.checkpoint_dir)
    if saved is not None:
        measured = None if options.cost_model is None else read_cost_model(options.cost_model)
        require_same_run(saved, options, identity_of(options, config, source), measured)
    return saved


def run_rank(options: Options, rank: int) -> None:
    """One rank of the run, from joining the others to the last file.

    Raises:
        VerificationFailed: on rank 0, at the end, if a difference is above its bar.
        CheckpointError: on rank 0, at the end, if the run's last checkpoint failed.
    """
    disable_progress_bar()  # the run has its own
    report = Report(rank, as_json=options.json)
    try:
        with joined(options) as ranks, naming_lost_peers():
            job = Job(options, ranks, report)
            job.run()
    finally:
        report.done()
    bar, verification = BARS.get(options.dtype), job.verification
    if verification is not None and bar is not None and not verification.largest <= bar:
        raise VerificationFailed(
            f"a relative difference of {verification.largest:.3g} ({verification.worst_gradient}) is above {bar:g}"
        )
    if rank == 0 and job.lost is not None:
        raise job.lost


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
        saved = require_resumable(options, self.config, self.source)
        self.rates = rates_of(self.ranks.device) if saved is None else saved.rates(self.ranks.device)
        self.measured = read_cost_model(options.cost_model) if options.cost_model else saved.measured() if saved else None
        self.require_measured_for_this()
        self.prediction: Prediction = FittedPrediction() if self.measured is None else MeasuredPrediction(self.measured)
        self.verification: Verification | None = None
        self.folder = self.output_folder(saved) if self.ranks.rank == 0 else Path()
        self.state = RunState(
            identity_of(options, self.config, self.source),
            ranks=self.ranks.size,
            cost=cost_state(self.measured, self.rates, self.ranks.device),
            steps_asked=options.steps,
            phase=options.plan,
            out=str(self.folder.absolute()) if self.ranks.rank == 0 else "",
        )
        self.lost: CheckpointError | None = None  # why the last checkpoint failed
        self.kept: list[dict[str, Any]] = []  # of Checkpoints.summary, by phase

    def run(self) -> None:
        """All of it; `verification` and `lost` are known when it returns."""
        trainer = self.trainer()
        checkpoints = self.checkpoints(trainer)
        self.begin(checkpoints)
        phases = list(dict.fromkeys((self.options.plan, STATIC)))
        self.report.progress(self.options.steps * len(phases) - self.steps_behind())
        for phase in phases[phases.index(self.state.phase) :]:
            if self.state.phase != phase:
                # The same batches from the same initial weights: the losses of both plans must agree, times may differ.
                self.state.phase, self.state.steps = phase, 0
                trainer = self.trainer()
                checkpoints = self.checkpoints(trainer)
            last = self.train(trainer, phase, checkpoints)
            if phase == self.options.plan:
                self.keep_results(trainer, last)
            if checkpoints is not None:
                # After the results, so that a run that goes on from here has them.
                if last is not None:
                    self.save(checkpoints)
                checkpoints.close()
                self.lost = checkpoints.failed
                self.kept.append(checkpoints.summary())
        self.conclude()

    def checkpoints(self, trainer: Trainer) -> Checkpoints | None:
        return None if self.options.checkpoint_dir is None else Checkpoints(self.options, trainer, self.state)

    def trainer(self) -> Trainer:
        model = build_model(self.config, self.dtype, self.options.seed, device=self.ranks.device)
        autocast = torch.bfloat16 if self.options.dtype == "bfloat16" else None
        return Trainer(model, self.source, self.ranks, self.options.learning_rate, autocast)

    def train(self, trainer: Trainer, strategy: str, checkpoints: Checkpoints | None) -> StepResult | None:
        """The steps under one plan that are still to do; returns the last, None where there was none."""
        memory = self.options.memory_tokens or self.options.batch_tokens
        cluster = cluster_of(self.ranks.size, memory)
        compute = torch.bfloat16 if self.options.dtype == "bfloat16" else self.dtype
        if self.measured is None:
            cost_model, sequence_seconds = cost_model_of(self.config, compute, self.ranks.device, self.rates), 0.0
        else:
            cost_model, sequence_seconds = self.measured.cost_model, self.measured.seconds_per("sequences")
        planner = Planner(cluster, cost_model, strategy, sequence_seconds, self.state.plan_seed)
        chosen, steps = strategy == self.options.plan, self.options.steps
        result = None
        for step in range(self.state.steps, steps):
            check = (
                partial(self.verify, trainer.model)
                if chosen and step == 0 and self.options.verify and self.ranks.rank == 0
                else None
            )
            result = trainer.run(step, planner, trace=chosen and step == steps - 1, before_update=check)
            self.prediction.fit(result)
            self.report.step(step_record(result, strategy, self.prediction))
            self.state.steps = step + 1
            if checkpoints is not None and checkpoints.due(step + 1) and step + 1 < steps:
                self.save(checkpoints)
        return result

    def save(self, checkpoints: Checkpoints) -> None:
        """A checkpoint of the trainer as it is, and of the run up to its last step."""
        self.state.position = self.source.position(self.state.steps)
        self.state.prediction = self.prediction.factor if isinstance(self.prediction, FittedPrediction) else None
        if self.ranks.rank == 0:
            self.state.verified = None if self.verification is None else asdict(self.verification)
            self.state.metrics = self.report.packed()
        checkpoints.save(self.steps_behind())

    def steps_behind(self) -> int:
        """Through all phases."""
        return self.state.steps + (0 if self.state.phase == self.options.plan else self.options.steps)

    def begin(self, checkpoints: Checkpoints | None) -> None:
        """Restores what is to be restored, then says what this run is."""
        restored = checkpoints.restore() if checkpoints is not None and self.options.resume else None
        resumed = None if restored is None else self.go_on()
        if self.ranks.rank == 0:
            self.report.keep_in(self.folder)
        self.introduce()
        if resumed is not None:
            self.report.record({"resumed": resumed}, resumed_line(resumed))
        elif self.options.resume:
            self.report.say(f"{self.options.checkpoint_dir} holds no checkpoint yet: the run begins at step 1")

    def go_on(self) -> dict[str, Any]:
        """Takes up the state that was restored; returns what is told of it."""
        state, options, rank = self.state, self.options, self.ranks.rank
        resumed = {"step": state.steps, "plan": state.phase, "ranks_before": state.ranks}
        self.source.start_at(state.position)
        if isinstance(self.prediction, FittedPrediction):
            self.prediction.factor = state.prediction
        if rank == 0:
            self.report.go_on_from(state.metrics)
            self.verification = None if state.verified is None else Verification(**state.verified)
            if state.phase != options.plan and not (self.folder / "model").exists():
                logger.warning("the model under %s was saved in %s and is not in %s", options.plan, state.out, self.folder)
        state.ranks, state.steps_asked = self.ranks.size, options.steps
        state.cost = cost_state(self.measured, self.rates, self.ranks.device)
        state.out = str(self.folder.absolute()) if rank == 0 else ""
        state.metrics, state.verified = b"", None  # of rank 0, which sets them in save()
        return resumed

    def keep_results(self, trainer: Trainer, last: StepResult | None) -> None:
        """Model and timeline of the chosen plan; nothing where an earlier process of the run has kept them."""
        if last is not None:
            self.write_timeline(last)
        if self.ranks.rank == 0 and (last is not None or not (self.folder / "model").exists()):
            trainer.model.save_pretrained(self.folder / "model")

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

    def output_folder(self, saved: RunState | None) -> Path:
        """`--out`; else where the resumed run kept its results, or a new one."""
        folder = self.options.out or (Path(saved.out) if saved is not None else next_free(Path("runs")))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"--out {str(folder)!r} cannot be made: {error.strerror}") from error
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
        if self.kept:
            costs = checkpoints_record(self.kept)
            self.report.record({"checkpoints": costs}, checkpoints_line(costs))
        self.report.record(
            {"out": str(self.folder)}, f"\nmodel, metrics.jsonl, timeline.svg and timeline.json are in {self.folder}"
        )


def next_free(parent: Path) -> Path:
    taken = {path.name for path in parent.glob("train-*")} if parent.is_dir() else set()
    return next(parent / name for number in range(1, len(taken) + 2) if (name := f"train-{number}") not in taken)
