"""Runs `hetsp train` as a user's torchrun would start it, in processes that can be killed at any moment.

The ranks are forked from the server of tests/support/ranks.py, which has imported torch, so a run starts in a second and can be
killed and resumed many times. Only processes started here are killed.
"""

from __future__ import annotations

import json
import multiprocessing.process
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.support.meeting import open_meeting
from tests.support.ranks import context

MODEL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 256,
}
SIZES = [1, 2, 3, 30, 31, 64, 100, 250, 300, 900]


def write_documents(place: Path, sizes: Sequence[int] = SIZES) -> list[str]:
    """A folder of documents and a model smaller than tiny; the options of `hetsp train` that use them."""
    (place / "data").mkdir(parents=True)
    for index, size in enumerate(sizes):
        text = bytes(32 + (position * (index + 3) + position // 7) % 90 for position in range(size))
        (place / "data" / f"{index}.txt").write_bytes(text)
    (place / "model.json").write_text(json.dumps(MODEL))
    options = {"--data": place / "data", "--model": place / "model.json", "--max-length": 300, "--batch-tokens": 500}
    return [str(word) for option in options.items() for word in option]


def _rank(rank: int, size: int, meeting: dict[str, str], arguments: list[str], folder: str) -> None:
    out = os.open(Path(folder, f"rank-{rank}.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {**meeting, "GLOO_SOCKET_IFNAME": "lo"}
    from hetsp_ext import cli

    os._exit(cli.main(["train", *arguments]))


class TrainRun:
    """One start of `hetsp train` on some ranks; `folder` takes what they print."""

    def __init__(self, ranks: int, arguments: Iterable[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store, meeting = open_meeting()
        self.processes: list[multiprocessing.process.BaseProcess] = [
            context.Process(target=_rank, args=(rank, ranks, meeting, [*arguments, "--json"], str(folder)), daemon=True)
            for rank in range(ranks)
        ]
        for process in self.processes:
            process.start()

    def output(self, rank: int = 0) -> str:
        path = self.folder / f"rank-{rank}.txt"
        return path.read_text() if path.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """What rank 0 has printed so far, whole lines only."""
        lines = self.output().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def steps(self) -> int:
        return sum("step" in record for record in self.records())

    def alive(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def wait_for_steps(self, count: int, seconds: float = 60.0) -> None:
        """Returns when that many steps are told, or the run has ended."""
        deadline = time.monotonic() + seconds
        while self.alive() and self.steps() < count:
            assert time.monotonic() < deadline, f"{self.steps()} of {count} steps in {seconds} s:\n{self.output()}"
            time.sleep(0.005)

    def kill(self, ranks: Sequence[int] | None = None) -> None:
        """SIGKILL to these ranks, all by default."""
        for rank in range(len(self.processes)) if ranks is None else ranks:
            self.processes[rank].kill()

    def end(self, seconds: float = 60.0) -> list[int | None]:
        """Waits for all ranks; their exit statuses, negative for signals."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        self.kill(late)
        assert not late, f"ranks {late} still ran after {seconds} s:\n{self.output(late[0])}"
        return [process.exitcode for process in self.processes]

    def finish(self) -> list[dict[str, Any]]:
        """Waits for a run that must succeed; its records."""
        statuses = self.end(120.0)
        said = "".join(f"\nrank {rank}:\n{self.output(rank)[-3000:]}" for rank, status in enumerate(statuses) if status)
        assert not said, f"exit statuses {statuses}:{said}"
        return self.records()
