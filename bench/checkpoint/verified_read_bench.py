"""Reading 1.6 GB of a checkpoint's file into live memory from a cold page cache, every byte verified, against fio.

    python -m bench.checkpoint.verified_read_bench --out bench/results/checkpoint_verified_read.json

fio reads as many bytes past the page cache in requests of 8 MiB and does nothing with them. Ours checks each extent and copies
it, with and without a way back (old bytes kept, or everything checked first; left to itself it times both and takes the
faster). The second case is what keeping old bytes hangs on: a copy into fresh memory, in small pages and in huge ones, by one
thread. TMPDIR chooses the disk.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.checkpoint import fio
from bench.support import Comparison, main
from hetsp_ext._native import core

BYTES = 1_600 << 20
HEADER = b" " * 4096
FREE = 64 << 30  # "as much as you like"


def write_file(path: Path, data: torch.Tensor) -> tuple[Any, str]:
    """The data as one rank's file; its spec, and the checksum's name."""
    engine = core.CheckpointEngine(64 << 20)
    spans, size = 100, data.nbytes // 100
    addresses = [data.data_ptr() + i * size for i in range(spans)]
    capture = engine.begin(str(path), HEADER, addresses, [size] * spans, [0] * spans)
    capture.wait_written()
    spec = core.FileSpec(str(path), capture.bytes, capture.header_hash, capture.extents)
    engine.close()
    return spec, engine.checksum


def make_cold(path: Path) -> None:
    """Drops a file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def reads(rounds: int, folder: Path) -> Comparison:
    """fio and ours by turns."""
    data = torch.randint(0, 1 << 62, (BYTES // 8,))
    spec, checksum = write_file(folder / "rank-00000.safetensors", data)
    target = torch.ones_like(data)
    pieces = [(0, len(HEADER), spec.size - len(HEADER), target.data_ptr())]

    def ours(**options: object) -> Callable[[], float]:
        def call() -> float:
            make_cold(Path(spec.path))
            target[::512] = 1
            begin = time.perf_counter()
            done = core.verified_read([spec], pieces, checksum=checksum, **options)
            seconds = time.perf_counter() - begin
            assert done.faults == []
            assert torch.equal(target[::4096], data[::4096])
            done.forget()
            return seconds

        return call

    contenders: dict[str, Callable[[], float]] = {}
    if (reason := fio.absent()) is None:
        contenders["fio, 8 MiB direct reads"] = lambda: fio.seconds(folder, BYTES, write=False)
        contenders["fio, four at a time"] = lambda: fio.seconds(folder, BYTES, write=False, jobs=4)
    else:
        print(f"fio is left out: {reason}")
    contenders["verified"] = ours()
    contenders["verified, with a way back"] = ours(undo=True)
    contenders["... all checked first"] = ours(undo=True, free_memory=0)
    contenders["... all old bytes kept"] = ours(undo=True, free_memory=FREE, window=1 << 40)
    return by_turns("1.6 GB into live memory, cold", contenders, rounds)


def touches(rounds: int) -> Comparison:
    """Copies into memory that is touched for the first time, and into memory that is not."""
    source = torch.ones(BYTES // 4, dtype=torch.uint8)
    old = torch.ones_like(source)

    def fresh(advice: int) -> Callable[[], float]:
        def call() -> float:
            with mmap.mmap(-1, len(source) + (2 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
                memory.madvise(advice)
                target = torch.frombuffer(memory, dtype=torch.uint8, count=len(source))
                begin = time.perf_counter()
                target.copy_(source)
                seconds = time.perf_counter() - begin
                del target
            return seconds

        return call

    def again() -> float:
        begin = time.perf_counter()
        old.copy_(source)
        return time.perf_counter() - begin

    no_huge = 15  # MADV_NOHUGEPAGE; Python names only its opposite
    contenders = {
        "memory in use": again,
        "fresh, small pages": fresh(no_huge),
        "fresh, huge pages": fresh(mmap.MADV_HUGEPAGE),
    }
    return by_turns("0.4 GB copied", contenders, rounds, len(source))


def by_turns(case: str, contenders: dict[str, Callable[[], float]], rounds: int, size: int = BYTES) -> Comparison:
    """One call of each a round, in rotating order."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(contenders[name]())
        order.append(order.pop(0))
    return Comparison(case, next(iter(contenders)), seconds, {"byte": size})


def run(rounds: int) -> Iterator[Comparison]:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="hetsp-verified-read-"))
    try:
        yield reads(rounds, folder)
    finally:
        shutil.rmtree(folder)
    yield touches(rounds)


if __name__ == "__main__":
    main(run)
