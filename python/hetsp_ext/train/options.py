"""What a run is asked to do. Read once from the command line, checked here, passed down unchanged."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import InvalidArgument

__all__ = ["DTYPES", "EVERY", "PLANS", "STATIC", "Options", "add_arguments", "add_model_arguments"]

STATIC = "static"
PLANS = ("auto", STATIC, "data-parallel")
DTYPES = ("float32", "float64", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
BACKENDS = ("auto", "gloo", "nccl", "hetsp")
DEFAULT_RANKS = 4
LONGEST = 1e8  # seconds of a timeout; some three years, which every clock and transport below can count
EVERY = 10  # steps from one checkpoint to the next


@dataclass(frozen=True)
class Options:
    """A checked request; the fields are the options of `hetsp train` (see add_arguments)."""

    ranks: int | None = None
    steps: int = 3
    batch_tokens: int = 32768
    max_length: int = 16384
    memory_tokens: int | None = None
    model: str = "tiny"
    data: Path | None = None
    pattern: str | None = None
    plan: str = "auto"
    cost_model: Path | None = None
    dtype: str = "float32"
    device: str = "auto"
    backend: str = "auto"
    learning_rate: float = 1e-3
    seed: int = 0
    verify: bool = False
    out: Path | None = None
    timeout: float = 600.0
    json: bool = False
    checkpoint_dir: Path | None = None
    every: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch_tokens": 1, "max_length": 1, "timeout": 1, "seed": -(1 << 63)}
        least |= {name: 1 for name in ("ranks", "memory_tokens", "every") if getattr(self, name) is not None}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise InvalidArgument(f"--{name.replace('_', '-')} is {getattr(self, name)}; at least {minimum} is needed")
        most = {"steps": 1 << 40, "every": 1 << 40, "batch_tokens": 1 << 40, "max_length": 1 << 40, "memory_tokens": 1 << 40}
        for name, maximum in (most | {"timeout": LONGEST, "seed": (1 << 63) - 1}).items():
            if not (getattr(self, name) is None or getattr(self, name) <= maximum):  # also for NaN
                raise InvalidArgument(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; at most {int(maximum)} is possible"
                )
        if not 0.0 <= self.learning_rate < float("inf"):
            raise InvalidArgument(f"--learning-rate is {self.learning_rate}; a finite number of at least 0 is needed")
        for name in ("every", "resume"):
            if getattr(self, name) and self.checkpoint_dir is None:
                raise InvalidArgument(f"--{name} needs --checkpoint-dir, the folder of the checkpoints")
        for name, allowed in {"plan": PLANS, "dtype": DTYPES, "device": DEVICES, "backend": BACKENDS}.items():
            if getattr(self, name) not in allowed:
                raise InvalidArgument(f"--{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}")

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Options":
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})


def add_model_arguments(group: "argparse._ArgumentGroup", default_ranks: int) -> None:
    """What decides how long a token takes: the same options for `train` and `calibrate`."""
    defaults = Options()
    group.add_argument(
        "--ranks", type=int, metavar="N", help=f"processes that share the work (default {default_ranks}, or torchrun's)"
    )
    group.add_argument(
        "--model",
        default=defaults.model,
        metavar="{tiny,small,FILE.json}",
        help="a built-in size or a transformers Llama config; weights are random (default %(default)s)",
    )
    group.add_argument(
        "--dtype", choices=DTYPES, default=defaults.dtype, help="bfloat16 keeps float32 weights (default %(default)s)"
    )
    group.add_argument(
        "--device", choices=DEVICES, default=defaults.device, help="auto: cuda if there is a GPU per rank, else cpu"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; their names are the fields of Options."""
    defaults = Options()
    job = parser.add_argument_group("the job")
    add_model_arguments(job, DEFAULT_RANKS)
    job.add_argument(
        "--backend",
        choices=BACKENDS,
        default=defaults.backend,
        help="what carries messages between ranks; auto: nccl on GPUs, else gloo; hetsp: over every NIC (docs/distributed.md)",
    )
    job.add_argument("--steps", type=int, default=defaults.steps, metavar="N", help="optimizer steps (default %(default)s)")
    job.add_argument(
        "--learning-rate", type=float, default=defaults.learning_rate, metavar="X", help="of AdamW (default %(default)s)"
    )
    job.add_argument(
        "--seed", type=int, default=defaults.seed, metavar="N", help="of weights and documents (default %(default)s)"
    )
    data = parser.add_argument_group("the documents")
    data.add_argument("--data", type=Path, metavar="DIR", help="folder of text files (default: Python's own standard library)")
    data.add_argument(
        "--pattern", metavar="GLOB", help="names of the files to take (default: all; *.py for the default folder)"
    )
    data.add_argument(
        "--max-length",
        type=int,
        default=defaults.max_length,
        metavar="TOKENS",
        help="longer documents are cut into documents of this length (default %(default)s)",
    )
    data.add_argument(
        "--batch-tokens", type=int, default=defaults.batch_tokens, metavar="TOKENS", help="of one step (default %(default)s)"
    )
    plan = parser.add_argument_group("the plan")
    plan.add_argument(
        "--plan",
        choices=PLANS,
        default=defaults.plan,
        help="auto: each document on as many ranks as it deserves; static: every document on all ranks; "
        "data-parallel: every document on one rank (default %(default)s)",
    )
    plan.add_argument(
        "--memory-tokens",
        type=int,
        metavar="TOKENS",
        help="what one rank can hold of a micro-batch (default: a whole step)",
    )
    plan.add_argument(
        "--cost-model",
        type=Path,
        metavar="FILE",
        help="plan and predict with what `hetsp calibrate` measured for this model (default: rates by hand, scaled to step 1)",
    )
    kept = parser.add_argument_group("checkpoints")
    kept.add_argument(
        "--checkpoint-dir",
        type=Path,
        metavar="DIR",
        help="keep checkpoints of the run here, so that --resume goes on with it after whatever stopped it",
    )
    kept.add_argument(
        "--every",
        type=int,
        metavar="K",
        help=f"a checkpoint after every K-th step, and after the last under each plan (default {EVERY})",
    )
    kept.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint that verifies, or begin where there is none; on any number of ranks",
    )
    output = parser.add_argument_group("the results")
    output.add_argument(
        "--verify", action="store_true", help="also compute step 1 on one rank with PyTorch's own attention, and compare"
    )
    output.add_argument(
        "--out", type=Path, metavar="DIR", help="model, metrics and timeline (default: a new folder below runs/)"
    )
    output.add_argument("--json", action="store_true", help="one JSON object a line on standard output, and nothing else there")
    output.add_argument(
        "--timeout",
        type=float,
        default=defaults.timeout,
        metavar="SECONDS",
        help="a rank that waits longer for another gives up (default %(default)s)",
    )
