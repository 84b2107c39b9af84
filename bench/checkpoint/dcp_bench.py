"""torch.distributed.checkpoint with its own file storage and with ours, on float32 weights and Adam moments.

    python -m bench.checkpoint.dcp_bench --out bench/results/checkpoint_dcp.json

`dcp.save` returns when the files are synced in either case; ours has hashed every byte, synced the directories and kept the
checkpoint before it intact until then. `dcp.load` reads into live tensors from a cold page cache; ours verifies every byte
first. Each contender saves to one path again and again, as a training run does; its first save is not counted. TMPDIR chooses
the disk.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from bench.support import Comparison, main
from hetsp_ext.checkpoint.dcp import HetspStorageReader, HetspStorageWriter

warnings.filterwarnings("ignore", message="torch.distributed is|Detected an existing checkpoint")
WEIGHTS = 134_000_000  # float32; with both moments 1.61 GB
LAYERS, WIDTH = 32, 2048


def make_state(weights: int = WEIGHTS) -> dict[str, torch.Tensor]:
    """Per layer a matrix and its two moments."""
    rows = weights // LAYERS // WIDTH
    return {f"{kind}.{layer}": torch.randn(rows, WIDTH) for layer in range(LAYERS) for kind in ("w", "m", "v")}


def make_cold(folder: Path) -> None:
    """Drops a folder's files from the page cache."""
    os.sync()
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def take_turns(
    case: str, contenders: dict[str, Callable[[], None]], before: Callable[[str], None], rounds: int, work: dict[str, float]
) -> Comparison:
    """One call of each contender a round, in rotating order; `before` prepares it and is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            before(name)
            begin = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - begin)
        order = order[1:] + order[:1]
    return Comparison(case, next(iter(contenders)), seconds, work)


def run(rounds: int) -> Iterator[Comparison]:
    """Saves, then loads what was saved."""
    state = make_state()
    size = sum(tensor.nbytes for tensor in state.values())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = HetspStorageWriter(folder / "hetsp")
        save = {
            "torch": lambda: dcp.save(state, storage_writer=dcp.FileSystemWriter(folder / "torch"), no_dist=True),
            "hetsp": lambda: dcp.save(state, storage_writer=ours, no_dist=True),
        }
        for call in save.values():
            call()
        yield take_turns(f"dcp.save, {size / 1e9:.2f} GB", save, lambda _: os.sync(), rounds, {"byte": size})
        ours.close()

        live = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
        readers = {
            "torch": lambda: dcp.FileSystemReader(folder / "torch"),
            "hetsp": lambda: HetspStorageReader(folder / "hetsp"),
            "hetsp without undo": lambda: HetspStorageReader(folder / "hetsp", undo=False),
        }
        load = {
            key: functools.partial(lambda make: dcp.load(live, storage_reader=make(), no_dist=True), make)
            for key, make in readers.items()
        }
        for key, call in load.items():
            for tensor in live.values():
                tensor.zero_()
            call()
            wrong = [at for at, tensor in state.items() if not torch.equal(live[at], tensor)]
            if wrong:
                raise AssertionError(f"{key} loaded other values of {wrong[:3]}")
        yield take_turns(f"dcp.load, {size / 1e9:.2f} GB, cold", load, lambda _: make_cold(folder), rounds, {"byte": size})
        shutil.rmtree(folder / "torch")


if __name__ == "__main__":
    main(run)
