"""`hetsp train`: trains a model on real documents, each document on as many ranks as it deserves."""

import argparse
import logging
import os
import time

from ..errors import HetspError, PeerLost
from ..train.options import DEFAULT_RANKS, Options, add_arguments

# A rank that fails beside others waits this long before it says so. If it failed only because another one did, it is stopped
# meanwhile, and the cause is told alone.
SECONDS_FOR_THE_CAUSE = 10.0

DESCRIPTION = """Trains a Llama with random weights on the text files of a folder. Each step is planned: every document gets as
many ranks as it deserves. Ends with a table that compares the plan with the static one on the same batches. Starts its own
ranks, or runs under torchrun: torchrun --nproc-per-node 4 -m hetsp_ext train."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_arguments(subparsers.add_parser("train", help="train a model on documents of any lengths", description=DESCRIPTION))


def run(args: argparse.Namespace) -> int:
    from ..train.ranks import is_rank

    options = Options.of(args)
    if is_rank():
        return run_one(options)
    from ..train.launcher import launch

    require_possible(options)
    return launch(args.argv, options.ranks or DEFAULT_RANKS)


def require_possible(options: Options) -> None:
    """Finds a wrong request before any rank starts, so that it is told once and at once."""
    from ..train.job import open_documents
    from ..train.model import model_config

    model_config(options.model, options.max_length)
    open_documents(options)


def run_one(options: Options) -> int:
    from transformers.utils.logging import disable_progress_bar

    from ..train.job import run_rank

    disable_progress_bar()  # the run has its own
    rank = int(os.environ["RANK"])
    logging.basicConfig(format=f"rank {rank}: %(message)s", level=logging.WARNING)
    logging.getLogger("hetsp").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    try:
        run_rank(options, rank)
    except HetspError as error:
        if rank != 0 or isinstance(error, PeerLost):
            time.sleep(SECONDS_FOR_THE_CAUSE)
        raise
    return 0
