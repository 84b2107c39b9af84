"""The command `hetsp`. Every public module of this package is one subcommand of its name:

    add_parser(subparsers)   declares its options
    run(args) -> int         does the work and returns the exit status

The exit statuses are those of EXIT_STATUS: argparse uses 2 as well, and 141 is that of a program that SIGPIPE ends.
"""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import HetspError, InvalidArgument, PlanInfeasible

__all__ = ["OUTPUT_CLOSED", "main"]

OUTPUT_CLOSED = 141  # 128 + SIGPIPE
EXIT_STATUS = (
    "exit status: 0 done, 1 the work failed, 2 the request was wrong, 130 interrupted, "
    f"{OUTPUT_CLOSED} nobody reads the output any more"
)
EXTRA = ("transformers", "safetensors", "tqdm", "matplotlib")  # packages of the extra `train`


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hetsp",
        description="Plan, shard and run training steps over sequences of wildly different lengths.",
        epilog=EXIT_STATUS,
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
        status = importlib.import_module(f"{__name__}.{args.command}").run(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a failure can be told, and not while the interpreter ends
        return status
    except HetspError as error:
        tell(args.command, error)
        return 2 if isinstance(error, (InvalidArgument, PlanInfeasible)) else 1
    except BrokenPipeError:
        end_output()
        return OUTPUT_CLOSED
    except OSError as error:
        end_output()
        tell(args.command, error)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        tell(args.command, f"{error.name} is not installed: pip install 'hetsp_ext[train]'")
        return 1
    except KeyboardInterrupt:
        print(f"hetsp {args.command}: interrupted", file=sys.stderr)
        return 130


def tell(command: str, error: object) -> None:
    print(f"hetsp {command}: error: {' '.join(str(error).split())}", file=sys.stderr)


def end_output() -> None:
    """Writes what is still buffered, or drops it where that fails: the interpreter would try again at its end, and complain."""
    try:
        sys.stdout.flush()
        return
    except (AttributeError, OSError, ValueError):
        pass
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # closed from the start, or not a file
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
