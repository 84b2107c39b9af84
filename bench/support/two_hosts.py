"""The command line of benchmarks over two hosts: network namespaces with four NICs each (tests/multirank/nic/hosts.py)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping

from bench.support.bars import Case, main_with_bars
from tests.multirank.nic.hosts import Hosts

Cases = Callable[[Hosts, argparse.Namespace], Iterator[Case]]


def main_over_hosts(
    what: str | None, kinds: Mapping[str, Cases], more: Callable[[argparse.ArgumentParser], object] = lambda parser: None
) -> None:
    """Every kind of case in turn on the same two hosts, or one of them (--only); `more` adds options of its own."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=400, help="Mbit/s of each NIC")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=kinds, help="one kind of case")
    more(parser)

    def run(options: argparse.Namespace) -> Iterator[Case]:
        with Hosts(nics=4, rate=options.rate) as hosts:
            for name, cases in kinds.items():
                if options.only in (None, name):
                    yield from cases(hosts, options)

    main_with_bars(run, parser)
