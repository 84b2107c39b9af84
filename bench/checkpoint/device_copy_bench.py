"""Capture of a GPU's memory: its share of the pinned device-to-host peak, and how much longer steps take while it runs.

    python -m bench.checkpoint.device_copy_bench [--place DIR] [--bytes N] [--rounds N] [--out FILE]

The ring holds the whole state, so no disk is in the way. "peak" is one transfer of as many bytes to pinned memory, "capture"
from begin() until the last byte has landed. A step is matrix products with a transfer of its own in each direction; steps are
timed in pairs, with a capture under way and without one. Only the steps during which it ran count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.support import Comparison, describe_machine, render, write
from hetsp_ext._native import core

MIB = 1 << 20
SHORT = 4096  # elements of the small tensors in the second state


def timed(work: Callable[[], Any]) -> float:
    """Seconds of `work`, the device idle before it and after."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def start(engine: Any, path: Path, tensors: list[torch.Tensor]) -> Any:
    """A capture of the tensors."""
    addresses, sizes = [tensor.data_ptr() for tensor in tensors], [tensor.nbytes for tensor in tensors]
    path.unlink(missing_ok=True)
    zeros = [0] * len(sizes)
    stream = torch.cuda.current_stream().cuda_stream
    return engine.begin(str(path), b" " * 4096, addresses, sizes, zeros, zeros, [], {0: stream})


def finish(capture: Any, path: Path) -> None:
    """The next one has the ring to itself."""
    capture.wait_written()
    path.unlink()


def copies(engine: Any, place: Path, tensors: list[torch.Tensor], what: str, rounds: int) -> Comparison:
    """Peak against capture."""
    size = sum(tensor.nbytes for tensor in tensors)
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    seconds: dict[str, list[float]] = {"peak": [], "capture": []}
    for _ in range(rounds + 1):
        seconds["peak"].append(timed(lambda: target.copy_(source, non_blocking=True)))
        captures: list[Any] = []

        def capture(captures: list[Any] = captures) -> None:
            captures.append(start(engine, place / "state", tensors))
            captures[0].wait_captured()

        seconds["capture"].append(timed(capture))
        finish(captures[0], place / "state")
    return Comparison(what, "peak", {name: values[1:] for name, values in seconds.items()}, {"byte": size})


def steps(engine: Any, place: Path, tensors: list[torch.Tensor], rounds: int) -> Comparison:
    """A step alone against a step with a capture under way."""
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    there, back = (torch.empty(64 * MIB, dtype=torch.uint8, pin_memory=True) for _ in range(2))
    side = torch.cuda.Stream()

    def step() -> None:
        with torch.cuda.stream(side):
            arrived = there.to("cuda", non_blocking=True)
            back.copy_(arrived, non_blocking=True)
        product = matrix
        for _ in range(4):
            product = product @ matrix
        torch.cuda.current_stream().wait_stream(side)

    seconds: dict[str, list[float]] = {"alone": [], "capture under way": []}
    timed(step)
    while len(seconds["alone"]) < rounds:
        capture = start(engine, place / "state", tensors)
        during = []
        while not capture.captured:
            begin = time.perf_counter()
            step()
            torch.cuda.current_stream().synchronize()
            if not capture.captured:
                during.append(time.perf_counter() - begin)
        finish(capture, place / "state")
        if not during:
            sys.exit("a capture is shorter than a step; raise --bytes")
        seconds["capture under way"].append(sum(during) / len(during))
        seconds["alone"].append(sum(timed(step) for _ in during) / len(during))
    return Comparison("step", "alone", seconds, {})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=Path.cwd(), help="folder for the file that captures are written to")
    parser.add_argument("--bytes", type=int, default=4 << 30)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    why = core.cuda_absent_why() or ("" if torch.cuda.is_available() else "this torch has no CUDA")
    if why:
        sys.exit(f"device_copy_bench needs a GPU: {why}")
    machine = describe_machine()
    large = [torch.randn(16 * MIB, device="cuda") for _ in range(options.bytes // (64 * MIB))]
    small = [torch.randn(SHORT, device="cuda") for _ in range(options.bytes // (16 * 4 * SHORT))]
    engine = core.CheckpointEngine(ring_bytes=options.bytes + 64 * MIB)
    with TemporaryDirectory(dir=options.place, prefix="device-copy-bench-") as folder:
        place = Path(folder)
        comparisons = [
            copies(engine, place, large, f"{len(large)} tensors of 64 MiB", options.rounds),
            copies(engine, place, small, f"{len(small)} tensors of {4 * SHORT >> 10} KiB", options.rounds),
            steps(engine, place, large, options.rounds),
        ]
    engine.close()
    print(render(comparisons))
    if options.out:
        command = ["python", "-m", "bench.checkpoint.device_copy_bench", "--rounds", str(options.rounds)]
        write(options.out, comparisons, command, machine)


if __name__ == "__main__":
    main()
