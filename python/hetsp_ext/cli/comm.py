"""`hetsp comm`: the nodes and network interfaces that backend hetsp finds, and what they carry."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..distributed.options import VARIABLE, Options
from ..errors import HetspError, InvalidArgument
from ._ranks import run_on_ranks

if TYPE_CHECKING:
    from ..distributed.bench import Request

DEFAULT_RANKS = 2
LONGEST = 1e8  # seconds; some three years, which every clock and transport below can count
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

DESCRIPTION = """topology: which ranks share a node, its network interfaces, who drives each, and the rails that they form
between nodes. bench: bandwidth per route, size and number of flows. Both start their own ranks on this machine, or run under
torchrun on several: torchrun --nnodes 2 ... -m hetsp_ext comm topology."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "comm", help="what backend hetsp finds of the network, and how fast it is", description=DESCRIPTION
    )
    tasks = parser.add_subparsers(title="tasks", dest="task", required=True, metavar="TASK")
    topology = tasks.add_parser("topology", help="nodes, network interfaces and rails")
    bench = tasks.add_parser("bench", help="bandwidth per route, size and number of flows")
    bench.add_argument(
        "--routes",
        default="routed,direct",
        metavar="LIST",
        help="routed: as the backend chooses; direct: the sender's own NIC; gloo: torch's backend (default %(default)s)",
    )
    bench.add_argument(
        "--sizes", default="64K,1M,16M,64M", metavar="LIST", help="of a message, in bytes, K, M or G (default %(default)s)"
    )
    bench.add_argument("--flows", default="1,2,4", metavar="LIST", help="pairs that send at once (default %(default)s)")
    bench.add_argument("--repeat", type=int, default=5, metavar="N", help="the median of so many is told (default %(default)s)")
    for each in (topology, bench):
        each.add_argument(
            "--ranks",
            type=int,
            metavar="N",
            help=f"ranks to start here (default {DEFAULT_RANKS}, those of --topology, or torchrun's)",
        )
        each.add_argument("--topology", type=Path, metavar="FILE", help=f"instead of what is found and of {VARIABLE}")
        each.add_argument("--json", action="store_true", help="JSON on standard output: one object, for bench one a line")
        each.add_argument(
            "--timeout", type=float, default=60.0, metavar="SECONDS", help="for a rank to come or answer (default %(default)s)"
        )


def run(args: argparse.Namespace) -> int:
    if not 0 < args.timeout <= LONGEST:
        raise InvalidArgument(f"--timeout is {args.timeout}; more than 0 and at most {LONGEST:g} seconds are needed")
    options: dict[str, Any] = {} if args.topology is None else {"topology": str(args.topology)}
    ranks = ranks_of(Options.of(options)) or DEFAULT_RANKS if args.ranks is None else args.ranks
    if ranks < 1:
        raise InvalidArgument(f"--ranks is {ranks}; at least 1 is needed")
    if args.task == "topology":
        return run_on_ranks(args.argv, ranks, lambda: None, lambda rank: show_topology(args, options))
    request = request_of(args)

    def check() -> None:
        from ..distributed.backend import require

        require()
        if ranks < 2:
            raise InvalidArgument(f"--ranks is {ranks}; a flow needs at least 2")

    return run_on_ranks(args.argv, ranks, check, lambda rank: run_bench(args, request, options, rank))


def ranks_of(options: Options) -> int:
    """How many ranks a given topology has; 0 where none is given, or it cannot be counted (the ranks will say why)."""
    try:
        return sum(len(node["ranks"]) for node in options.topology["nodes"]) if options.topology else 0
    except (TypeError, KeyError):
        return 0


def request_of(args: argparse.Namespace) -> "Request":
    from ..distributed.bench import Request

    return Request(
        tuple(args.routes.split(",")),
        tuple(size_of(text) for text in args.sizes.split(",")),
        tuple(whole(text, "--flows") for text in args.flows.split(",")),
        args.repeat,
    )


def size_of(text: str) -> int:
    unit = text[-1:].upper() if text[-1:].upper() in "KMG" else ""
    return whole(text[: len(text) - len(unit)], "--sizes") * UNITS[unit]


def whole(text: str, option: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidArgument(f"{option} has {text!r}; whole numbers separated by commas are needed, as in 64K,1M or 1,2,4")
    return int(text)


def show_topology(args: argparse.Namespace, options: dict[str, Any]) -> None:
    from torch.distributed.rendezvous import rendezvous

    from ..distributed.look import look, topology_text

    timeout = timedelta(seconds=args.timeout)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
    except RuntimeError as error:  # of torch: the address is taken, or nobody is there
        raise HetspError(f"the ranks do not meet: {str(error).splitlines()[0]}") from error
    record = look(store, rank, size, timeout, options)
    if rank == 0:
        print(json.dumps(record) if args.json else topology_text(record), flush=True)


def run_bench(args: argparse.Namespace, request: "Request", options: dict[str, Any], rank: int) -> None:
    import torch.distributed as dist

    from ..distributed.backend import topology_of_group
    from ..distributed.bench import ROUTES, bench_table, measure

    timeout = timedelta(seconds=args.timeout)
    dist.init_process_group("hetsp", timeout=timeout, pg_options=options)
    groups: dict[str, Any] = {}
    try:
        for route in request.routes:
            backend, more = ROUTES[route]
            own = options | more if backend == "hetsp" else None
            groups[route] = dist.new_group(backend=backend, timeout=timeout, pg_options=own)
        records = []
        for record in measure(request, topology_of_group(), groups, teller(rank)):
            records.append(record)
            if rank == 0 and args.json:
                print(json.dumps(record), flush=True)
        if rank == 0:
            teller(rank)("")
            if not args.json:
                print(bench_table(records), flush=True)
    except RuntimeError as error:
        if isinstance(error, HetspError):
            raise
        raise HetspError(f"a measurement failed: {str(error).splitlines()[0]}") from error
    except KeyboardInterrupt:
        for group in (*groups.values(), dist.group.WORLD):
            group.abort()  # each would wait for the others to leave it as well, which may be waiting for this rank
        raise
    finally:
        dist.destroy_process_group()


def teller(rank: int) -> Callable[[str], None]:
    """Says how far it is, on standard error: in one line of a terminal, else a line each."""

    def tell(text: str) -> None:
        if rank != 0:
            return
        if sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            print(f"\r{text[: width - 1]:<{width - 1}}", end="" if text else "\r", file=sys.stderr, flush=True)
        elif text:
            print(text, file=sys.stderr, flush=True)

    return tell
