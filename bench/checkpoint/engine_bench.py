"""Durable writes of 1.6 GB of memory through the engine's ring, hashed and fsynced, against fio's direct writes beside them.

    python -m bench.checkpoint.engine_bench [--place DIR] [--bytes N] [--rounds N] [--out FILE]

A round runs fio and each way of the engine once, in rotating order. fio's figure is its own run time, without its start; the
engine's is from begin() to the return of wait_written(). Both write 8 MiB past the page cache and end with fsync.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.support import Comparison, describe_machine, render, write
from hetsp_ext._native import core

from . import fio

MIB = 1 << 20
WAYS = {  # name: ring bytes, io, writers
    "io_uring, 64 MiB ring": (64 * MIB, "io_uring", 1),
    "direct, 64 MiB ring": (64 * MIB, "direct", 1),
    "direct, 2 writers, 64 MiB ring": (64 * MIB, "direct", 2),
    "io_uring, 256 MiB ring": (256 * MIB, "io_uring", 1),
    "buffered, 64 MiB ring": (64 * MIB, "buffered", 1),
}


def save(engine: core.CheckpointEngine, place: Path, tensors: list[torch.Tensor]) -> float:
    """Seconds until the tensors are on the disk."""
    path = place / "engine.bin"
    addresses = [tensor.data_ptr() for tensor in tensors]
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    begin = time.perf_counter()
    capture = engine.begin(str(path), b" " * 4096, addresses, sizes, [0] * len(sizes))
    capture.wait_written()
    seconds = time.perf_counter() - begin
    assert path.stat().st_size == 4096 + sum(sizes)
    path.unlink()
    return seconds


def run(place: Path, size: int, rounds: int) -> Comparison:
    """All contenders in `rounds` rounds."""
    tensors = [torch.randn(4 * MIB) for _ in range(size // (16 * MIB))]
    size = len(tensors) * 16 * MIB
    engines = {
        name: core.CheckpointEngine(ring_bytes=ring, io=io, writers=writers) for name, (ring, io, writers) in WAYS.items()
    }
    contenders = {name: lambda engine=engine: save(engine, place, tensors) for name, engine in engines.items()}
    if fio.absent() is None:
        contenders = {"fio": lambda: fio.seconds(place, size), **contenders}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for round_number in range(rounds):
        for i in range(len(names)):
            name = names[(round_number + i) % len(names)]
            seconds[name].append(contenders[name]())
    for name, engine in engines.items():
        if WAYS[name][1] != engine.io:
            print(f"{name}: was {engine.io}: {engine.io_reason}")
    checksum = next(iter(engines.values())).checksum
    return Comparison(f"{size / 1e9:.2f} GB, durable, {checksum}", names[0], seconds, {"byte": size})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=Path.cwd(), help="folder on the disk that is meant")
    parser.add_argument("--bytes", type=int, default=1_610_612_736)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = describe_machine()
    with TemporaryDirectory(dir=options.place, prefix="engine-bench-") as place:
        comparison = run(Path(place), options.bytes, options.rounds)
    print(render([comparison]))
    print("load", " ".join(f"{value:.1f}" for value in os.getloadavg()))
    if options.out:
        command = ["python", "-m", "bench.checkpoint.engine_bench", "--rounds", str(options.rounds)]
        write(options.out, [comparison], command, machine)


if __name__ == "__main__":
    main()
