"""`hetsp plan`: plans a step from its lengths and prints the plan.

With --preset the plan is of disjoint groups, on the cost model, memory and cluster of that name; docs/planner.md has the format
of --json. Without, it is a plan of the training engine: for what --cost-model measured, or for an assumed cost model."""

import argparse
import json
from typing import Any

from ..errors import InvalidArgument
from ..planner import Cluster, plan, plan_record, preset, strategy_names, write_plans
from ._cost_model import add_cost_model, cost_model_of
from ._lengths import MOST_TOKENS, integer, ranks, read_lengths, tokens

SYNCHRONISATIONS = ("step", "micro_batch", "layer")
NEEDS_PRESET = ("max_length", "micro_batches", "one_micro_batch", "degrees", "target_gap", "simulated")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("plan", help="plan a step from its lengths", description=__doc__)
    parser.add_argument("--ranks", "--gpus", type=ranks, required=True, help="ranks of the data x sequence axis")
    parser.add_argument(
        "--lengths",
        required=True,
        metavar="1,2,3|FILE",
        help="tokens of each sequence: a list, or a .json array, a .npz or .npy array (of a .npz: 'lengths', or the only one), "
        "or a text file of integers",
    )
    parser.add_argument("--first", type=int, metavar="N", help="only the first N lengths")
    parser.add_argument("--preset", metavar="NAME", help="cost model, memory and nodes by name, such as flexsp-7b or llama-7b")
    add_cost_model(parser)
    parser.add_argument(
        "--max-length",
        type=tokens,
        metavar="TOKENS",
        help="with --preset: the context the model is sized for, such as 384K; longer sequences are planned all the same",
    )
    parser.add_argument(
        "--memory-tokens",
        type=integer,
        metavar="TOKENS",
        help="without --preset: tokens that one rank can hold of a micro-batch (default: enough for one of everything)",
    )
    parser.add_argument("--strategy", choices=tuple(strategy_names()), default="auto")
    parser.add_argument("--micro-batches", type=_count, metavar="N|auto", help="with --preset: at most so many (default: auto)")
    parser.add_argument("--one-micro-batch", action="store_true", help="with --preset: the same as --micro-batches 1")
    parser.add_argument("--degrees", choices=("any", "pow2"), help="with --preset: ranks of a group (default: pow2)")
    parser.add_argument("--target-gap", type=float, metavar="FRACTION", help="with --preset: stop this near the bound")
    parser.add_argument(
        "--simulated", action="store_true", help="with --preset: auto takes the plan that `hetsp simulate` finds fastest"
    )
    parser.add_argument(
        "--synchronisation", choices=SYNCHRONISATIONS, help="where ranks wait (default: step; of presets: as their system)"
    )
    parser.add_argument("--window", type=int, metavar="TOKENS", help="keys that a query sees before its own (default: all)")
    parser.add_argument("--work-limit", type=int, metavar="UNITS", help="of the search; default: by sequences x ranks")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="of the search; the plan is then not reproducible")
    parser.add_argument("--seed", type=integer, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--out", metavar="FILE", help="also write the whole plan, a line of plans.jsonl")


def run(args: argparse.Namespace) -> int:
    lengths = read_lengths(args.lengths)
    if args.first is not None:
        if args.first < 1:
            raise InvalidArgument(f"--first is {args.first}, must be at least 1")
        lengths = lengths[: args.first]
    search = {"strategy": args.strategy, "work_limit": args.work_limit, "time_limit": args.time_limit, "seed": args.seed}
    measured = cost_model_of(args)
    made = _for_preset(args, lengths, search) if args.preset is not None else _for_engine(args, lengths, measured, search)
    if args.out is not None:
        try:
            write_plans(args.out, [made])
        except OSError as error:
            raise InvalidArgument(f"--out: {args.out} cannot be written: {error.strerror}") from None
    predicted = {} if measured is None else _prediction(measured, made)
    if not args.json:
        print(made, end="")
        for name, seconds in predicted.items():
            print(f"{name.replace('_', ' ')}: {seconds:.4g}")
    elif args.preset is not None:
        print(json.dumps(plan_record(made)))
    else:
        print(json.dumps({**made.to_dict(), "gap": made.gap, "balance": made.balance, "one_line": made.one_line()} | predicted))
    return 0


def _for_preset(args: argparse.Namespace, lengths: list[int], search: dict[str, Any]) -> Any:
    chosen = preset(args.preset)
    if args.max_length is None:
        raise InvalidArgument("--max-length is missing; a preset needs it for the memory that the model leaves")
    if args.memory_tokens is not None:
        raise InvalidArgument("--memory-tokens is for plans without --preset, which has its own memory")
    if args.window is not None:
        raise InvalidArgument("--window is for plans without --preset")
    if args.one_micro_batch and args.micro_batches not in (None, 0, 1):
        raise InvalidArgument(f"--one-micro-batch contradicts --micro-batches {args.micro_batches}")
    return plan(
        chosen.sequences(lengths),
        chosen.cluster(args.ranks, args.max_length),
        chosen.cost_model,
        executable=chosen.executable,
        exclusive=True,
        degrees=args.degrees or "pow2",
        micro_batches=1 if args.one_micro_batch else args.micro_batches or None,
        target_gap=args.target_gap or 0.0,
        synchronisation=args.synchronisation or chosen.synchronisation,
        simulated=args.simulated,
        overlap=chosen.overlaps,
        **search,
    )


def _prediction(measured: Any, made: Any) -> dict[str, float]:
    """As `hetsp train` runs the plan; its makespan charges start-ups to every sequence alone."""
    seconds = measured.seconds(made)
    return {"predicted_seconds": seconds, "predicted_step_seconds": seconds + measured.step_seconds}


def _for_engine(args: argparse.Namespace, lengths: list[int], measured: Any, search: dict[str, Any]) -> Any:
    for name in NEEDS_PRESET:
        if getattr(args, name) not in (None, False):
            raise InvalidArgument(f"--{name.replace('_', '-')} needs --preset")
    memory = args.memory_tokens if args.memory_tokens is not None else min(max(1, sum(lengths)), MOST_TOKENS)
    synchronisation = args.synchronisation or "step"
    cluster = Cluster(args.ranks, memory)
    if measured is None:
        return plan(lengths, cluster, window=args.window, synchronisation=synchronisation, **search)
    sequences = measured.sequences(lengths, -1 if args.window is None else args.window)
    return plan(sequences, cluster, measured.cost_model, synchronisation=synchronisation, **search)


def _count(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of micro-batches, at least 1, or auto")
    return int(text)
