"""`hetsp plan`: plans a step from its lengths and prints the plan."""

import argparse
import json
from pathlib import Path

import numpy as np

from ..errors import InvalidArgument
from ..planner import Cluster, plan

STRATEGIES = ("auto", "static", "data-parallel")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("plan", help="plan a step from its lengths", description=__doc__)
    parser.add_argument("--ranks", type=int, required=True, help="ranks of the data x sequence axis")
    parser.add_argument(
        "--lengths",
        required=True,
        metavar="1,2,3|FILE",
        help="tokens of each sequence: a list, or a .json array, a .npz or .npy array (of a .npz: 'lengths', or the only one), "
        "or a text file of integers",
    )
    parser.add_argument("--first", type=int, metavar="N", help="only the first N lengths")
    parser.add_argument(
        "--memory-tokens",
        type=int,
        metavar="TOKENS",
        help="tokens that one rank can hold of a micro-batch (default: enough for one micro-batch of everything)",
    )
    parser.add_argument("--strategy", choices=STRATEGIES, default="auto")
    parser.add_argument("--synchronisation", choices=("step", "micro_batch", "layer"), default="step", help="where ranks wait")
    parser.add_argument("--window", type=int, metavar="TOKENS", help="keys that a query sees before its own (default: all)")
    parser.add_argument("--work-limit", type=int, metavar="VISITS", help="of the search; default: by sequences x ranks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object: the plan with gap, balance and one_line")


def run(args: argparse.Namespace) -> int:
    lengths = read_lengths(args.lengths)
    if args.first is not None:
        if args.first < 1:
            raise InvalidArgument(f"--first is {args.first}, must be at least 1")
        lengths = lengths[: args.first]
    memory = args.memory_tokens if args.memory_tokens is not None else max(1, sum(lengths))
    made = plan(
        lengths,
        Cluster(args.ranks, memory),
        strategy=args.strategy,
        work_limit=args.work_limit,
        seed=args.seed,
        window=args.window,
        synchronisation=args.synchronisation,
    )
    if args.json:
        print(json.dumps({**made.to_dict(), "gap": made.gap, "balance": made.balance, "one_line": made.one_line()}))
    else:
        print(made, end="")
    return 0


def read_lengths(text: str) -> list[int]:
    """Lengths from a comma-separated list, or from a file by its suffix. Raises InvalidArgument naming what is wrong."""
    path = Path(text)
    if not path.is_file():
        return _integers(text.split(","), f"--lengths {text!r} is no file, so it must be integers separated by commas")
    try:
        if path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in (".npz", ".npy"):
            data = _array(path)
        else:
            data = path.read_text(encoding="utf-8").replace(",", " ").split()
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"--lengths: {path} cannot be read: {error}") from None
    if not isinstance(data, list):
        raise InvalidArgument(f"--lengths: {path} must hold one array of integers, it holds a {type(data).__name__}")
    return _integers(data, f"--lengths: {path} must hold integers")


def _array(path: Path) -> list[object]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded.tolist()
    with loaded as arrays:
        name = "lengths" if "lengths" in arrays.files else arrays.files[0] if len(arrays.files) == 1 else None
        if name is None:
            raise InvalidArgument(f"--lengths: {path} holds {', '.join(arrays.files)}; none is called 'lengths'")
        return arrays[name].tolist()


def _integers(items: list[object] | list[str], complaint: str) -> list[int]:
    lengths = []
    for item in items:
        if isinstance(item, (bool, float)) or not isinstance(item, (int, str)):
            raise InvalidArgument(f"{complaint}; {item!r} is none")
        try:
            lengths.append(int(item))
        except ValueError:
            raise InvalidArgument(f"{complaint}; {item!r} is none") from None
    return lengths
