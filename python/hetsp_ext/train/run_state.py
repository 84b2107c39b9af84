"""What of a run is in neither its model nor its optimizer, so that a killed one goes on bit for bit; and whether a run is the
one that a checkpoint is of.

A step is a function of the weights, the optimizer's moments, the documents of the step and the plan. The documents follow from
their position in the folder's order; the plan from the lengths, the ranks, the cost model and the search's seed. No plan is
queued: the next one is made from these again, and equal arguments give equal plans.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from transformers import LlamaConfig

import hetsp_ext

from ..calibration import MeasuredCost, cost_of_record, cost_record
from ..errors import InvalidArgument
from .cost import Rates, rates_of
from .options import STATIC, Options

__all__ = ["RunState", "identity_of", "require_same_run"]

VERSION = 1
# What transformers notes about a config beside the model that it describes.
NOTES = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "max_position_embeddings")


@dataclass
class RunState:
    """A run after `steps` steps of its phase; all are plain values, so that they fit into a checkpoint's manifest."""

    identity: dict[str, Any]  # of identity_of: what decides the numbers, whoever computes them
    ranks: int = 0
    plan_seed: int = 0
    cost: dict[str, Any] = field(default_factory=dict)  # what plans are made by, see cost_state
    steps_asked: int = 0
    phase: str = ""  # the strategy that plans: the chosen one, then static
    steps: int = 0
    position: dict[str, Any] = field(default_factory=dict)  # in the documents
    prediction: float | None = None  # the factor of FittedPrediction
    verified: dict[str, Any] | None = None  # of rank 0
    out: str = ""  # of rank 0
    metrics: bytes = b""  # of rank 0: Report.packed

    def state_dict(self) -> dict[str, Any]:
        """For LazyCheckpointer."""
        return {"version": VERSION, **{each.name: getattr(self, each.name) for each in fields(self)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises InvalidArgument for the state of another version of this program."""
        names = {each.name for each in fields(self)}
        if state.get("version") != VERSION or set(state) != {"version", *names}:
            raise InvalidArgument(
                f"the checkpoint's run state is of version {state.get('version')!r} with {len(state) - 1} fields; "
                f"this program reads version {VERSION} with {len(names)}"
            )
        for name in names:
            setattr(self, name, state[name])

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> RunState:
        """A run's state out of a checkpoint; see load_state_dict."""
        found = cls({})
        found.load_state_dict(state)
        return found

    def measured(self) -> MeasuredCost | None:
        """The measured cost model of the run, if it had one."""
        return cost_of_record(self.cost["measured"]) if "measured" in self.cost else None

    def rates(self, device: torch.device) -> Rates:
        """The assumed rates of the run where it goes on the same kind of device; else what is assumed of this one."""
        return Rates(**self.cost["rates"]) if self.cost.get("device") == device.type else rates_of(device)


def cost_state(measured: MeasuredCost | None, rates: Rates, device: torch.device) -> dict[str, Any]:
    """The cost model of a run as plain values."""
    if measured is None:
        return {"device": device.type, "rates": asdict(rates)}
    return {"measured": json.loads(json.dumps(cost_record(measured)))}  # lists, as a file would give them back


def identity_of(options: Options, config: LlamaConfig, source: hetsp_ext.FolderSource) -> dict[str, Any]:
    """By option, what decides the losses of a run beyond rounding. Ranks and memory decide only who computes what."""
    model = {name: value for name, value in config.to_dict().items() if name not in NOTES}
    return {
        "--model": json.loads(json.dumps(model, default=str)),
        "--dtype": options.dtype,
        "--seed": options.seed,
        "--learning-rate": options.learning_rate,
        "--max-length": options.max_length,
        "--batch-tokens": options.batch_tokens,
        "--plan": options.plan,
        "--data": {"files": source.files, "tokens": source.tokens, "fingerprint": source.fingerprint()},
    }


def differences(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Where two identities differ, in words; the documents only where nothing else does that decides which they are."""
    found = []
    for name in own:
        if name == "--data" and any(own[other] != saved.get(other) for other in ("--seed", "--max-length", "--batch-tokens")):
            continue
        theirs = saved.get(name)
        if own[name] == theirs:
            continue
        if isinstance(own[name], dict) and isinstance(theirs, dict):
            parts = [part for part in {**own[name], **theirs} if own[name].get(part) != theirs.get(part)]
            words = [f"{part} {own[name].get(part)!r}, the checkpoint's {theirs.get(part)!r}" for part in parts[:3]]
            found.append(f"{name} differs: {'; '.join(words)}{', and more' if len(parts) > 3 else ''}")
        else:
            found.append(f"{name} is {own[name]!r}, the checkpoint's {theirs!r}")
    return found


def require_same_run(saved: RunState, options: Options, own: Mapping[str, Any], measured: MeasuredCost | None) -> None:
    """Raises InvalidArgument naming every option by which the asked run is not the one that was saved.

    `measured` is the cost model of --cost-model. Without that option the run goes on by the one that it was saved with.
    """
    wrong = differences(own, saved.identity)
    if measured is not None and saved.cost.get("measured") != json.loads(json.dumps(cost_record(measured))):
        kind = "another one" if "measured" in saved.cost else "assumed rates"
        wrong.append(f"--cost-model {options.cost_model}: the checkpoint's run plans by {kind}; leave the option out")
    if saved.phase != options.plan and not wrong and options.steps != saved.steps_asked:
        wrong.append(
            f"--steps is {options.steps}, and the run has ended with {saved.steps_asked} under {options.plan}; "
            f"those under {STATIC} are as many"
        )
    elif options.steps < saved.steps:
        wrong.append(f"--steps is {options.steps}, and the checkpoint is of step {saved.steps}")
    if options.verify and saved.verified is None:
        wrong.append(f"--verify checks step 1, and the checkpoint is of step {saved.steps} under {saved.phase}")
    if wrong:
        raise InvalidArgument(f"--resume: {options.checkpoint_dir} is of another run: {'; '.join(wrong)}")
