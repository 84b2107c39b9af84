"""`hetsp train`: trains a model on real documents, each document on as many ranks as it deserves."""

import argparse

from ..train.options import DEFAULT_RANKS, Options, add_arguments
from ._ranks import run_on_ranks

DESCRIPTION = """Trains a Llama with random weights on the text files of a folder. Each step is planned: every document gets as
many ranks as it deserves. Ends with a table that compares the plan with the static one on the same batches. Starts its own
ranks, or runs under torchrun: torchrun --nproc-per-node 4 -m hetsp_ext train."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_arguments(subparsers.add_parser("train", help="train a model on documents of any lengths", description=DESCRIPTION))


def run(args: argparse.Namespace) -> int:
    options = Options.of(args)

    def job(rank: int) -> None:
        from ..train.job import run_rank

        run_rank(options, rank)

    return run_on_ranks(args.argv, options.ranks or DEFAULT_RANKS, lambda: require_possible(options), job)


def require_possible(options: Options) -> None:
    """Raises where no rank could do as asked."""
    from ..calibration import read_cost_model
    from ..distributed.backend import require
    from ..train.job import open_documents, require_resumable
    from ..train.model import model_config

    if options.backend == "hetsp":
        require()
    require_resumable(options, model_config(options.model, options.max_length), open_documents(options))
    if options.cost_model is not None:
        read_cost_model(options.cost_model)
