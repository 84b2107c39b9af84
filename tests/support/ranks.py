"""Runs a function on several ranks of one machine, over Gloo, and brings back what each returned.

Ranks are forked from one server process that has imported torch already, so that a test with five ranks starts in a fraction
of a second. Every run is bounded in time, and ends only the processes it started.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "torch",
        "torch.distributed",
        "torch.distributed.checkpoint",
        "torch.distributed.tensor",
        "hetsp_ext",
        "numpy",
        "hetsp_ext.train.job",
    ]
)


def _send(connection: Any, answer: tuple[Any, ...]) -> None:
    """By value: what torch's own pickler sends is shared memory, gone with the sender."""
    connection.send_bytes(pickle.dumps(answer))


def _rank_main(rank: int, size: int, store: str, connection: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
        )
        dist.barrier()  # all are connected before any may fail
        result = function(rank, size, *args)
        dist.barrier()
        _send(connection, ("value", result))
    except BaseException as error:  # the parent decides what it means
        _send(
            connection, ("error", error if isinstance(error, Exception) else RuntimeError(repr(error)), traceback.format_exc())
        )
    finally:
        connection.close()
        if dist.is_initialized():
            dist.destroy_process_group()


class RankFailure(AssertionError):
    """A rank raised; the message has its traceback. `error` is the exception of the lowest failing rank."""

    def __init__(self, message: str, error: Exception | None) -> None:
        super().__init__(message)
        self.error = error


def run_ranks(size: int, function: Callable[..., Any], *args: Any, timeout: float = 90.0, outcomes: bool = False) -> list[Any]:
    """Calls function(rank, size, *args) on `size` ranks of the default group; returns the results by rank.

    With outcomes=True a rank that raised gives its exception instead, and one that died without a word gives None.
    `timeout` is in seconds; ranks still running then are killed and the call raises RankFailure.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        store = str(Path(folder) / "store")
        ranks = [
            context.Process(target=_rank_main, args=(rank, size, store, pipes[rank][1], function, args), daemon=True)
            for rank in range(size)
        ]
        for process, (_, writer) in zip(ranks, pipes, strict=True):
            process.start()
            writer.close()
        deadline = time.monotonic() + timeout
        answers: list[Any] = [None] * size
        try:
            for rank, (reader, _) in enumerate(pipes):
                if not reader.poll(max(0.0, deadline - time.monotonic())):
                    raise RankFailure(f"rank {rank} said nothing within {timeout} s", None)
                try:
                    answers[rank] = pickle.loads(reader.recv_bytes())
                except EOFError:
                    answers[rank] = None
        finally:
            for process in ranks:
                process.join(max(0.0, min(5.0, deadline - time.monotonic())))
                if process.is_alive():
                    process.kill()
                    process.join()
    if outcomes:
        return [None if answer is None else answer[1] for answer in answers]
    failed = [(rank, answer) for rank, answer in enumerate(answers) if answer is None or answer[0] == "error"]
    if failed:
        texts = [f"rank {rank}: {'died' if answer is None else answer[2]}" for rank, answer in failed]
        raise RankFailure("\n".join(texts), failed[0][1][1] if failed[0][1] else None)
    return [answer[1] for answer in answers]
