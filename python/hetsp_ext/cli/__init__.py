"""The command `hetsp`. Every public module of this package is one subcommand of its name:

    add_parser(subparsers)   declares its options
    run(args) -> int         does the work and returns the exit status

Exit status: 0 done, 1 the work failed, 2 the request was wrong (argparse uses the same), 130 interrupted.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import HetspError, InvalidArgument, PlanInfeasible

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hetsp", description="Plan, shard and run training steps over sequences of wildly different lengths."
    )
    parser.add_argument("--version", action="version", version=f"hetsp_ext {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name; default sys.argv[1:]) and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments)
    args.argv = arguments  # `train` repeats the command line in each of its ranks
    try:
        return importlib.import_module(f"{__name__}.{args.command}").run(args)
    except HetspError as error:
        print(f"hetsp {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, (InvalidArgument, PlanInfeasible)) else 1
    except KeyboardInterrupt:
        print(f"hetsp {args.command}: interrupted", file=sys.stderr)
        return 130
