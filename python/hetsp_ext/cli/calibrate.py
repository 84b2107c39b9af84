"""`hetsp calibrate`: measures what a training step costs on this machine, for `plan`, `simulate` and `train` --cost-model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..train.options import Options, add_model_arguments
from ._ranks import run_on_ranks

if TYPE_CHECKING:
    from ..train.calibrate import Request

DEFAULT_RANKS = 2

DESCRIPTION = """Runs probe steps of `hetsp train` on several ranks at once: short and long sequences, whole and shared. Fits
what attention, the linear modules, the exchange between ranks and the rest of a step cost, prints the error of every point,
and writes the cost model as JSON. Best on a machine that has nothing else to do. docs/calibrate.md has the formula and the
limits."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    defaults = Options()
    parser = subparsers.add_parser("calibrate", help="measure this machine for predictions in seconds", description=DESCRIPTION)
    add_model_arguments(parser.add_argument_group("the job that times are for"), DEFAULT_RANKS)
    sizes = parser.add_argument_group("the range of sizes that is measured")
    sizes.add_argument(
        "--max-length", type=int, default=defaults.max_length, metavar="TOKENS", help="longest sequence (default %(default)s)"
    )
    sizes.add_argument(
        "--batch-tokens", type=int, default=defaults.batch_tokens, metavar="TOKENS", help="of one step (default %(default)s)"
    )
    sizes.add_argument("--quick", action="store_true", help="small probes, fewer repetitions: seconds instead of minutes")
    output = parser.add_argument_group("the results")
    output.add_argument(
        "--out", type=Path, default=Path("cost_model.json"), metavar="FILE", help="the cost model (default %(default)s)"
    )
    output.add_argument("--json", action="store_true", help="one JSON object on standard output instead of a table")
    output.add_argument(
        "--timeout",
        type=float,
        default=defaults.timeout,
        metavar="SECONDS",
        help="a rank that waits longer for another gives up (default %(default)s)",
    )


def request_of(args: argparse.Namespace) -> "Request":
    from ..train.calibrate import Request

    names = ("ranks", "model", "dtype", "device", "max_length", "batch_tokens", "timeout", "json")
    options = Options(**{name: getattr(args, name) for name in names})
    return Request(options, args.out, args.quick, args.argv)


def run(args: argparse.Namespace) -> int:
    from ..train.calibrate import require_place, run_rank
    from ..train.model import model_config

    request = request_of(args)

    def check() -> None:
        model_config(request.options.model, request.options.max_length)
        require_place(request.out)

    return run_on_ranks(args.argv, request.options.ranks or DEFAULT_RANKS, check, lambda rank: run_rank(request, rank))
