"""Times calls on a GPU by its own clock, and notes at which frequency and power it ran meanwhile.

A sample is one call between two events. Before it the L2 cache is flushed, and the stream is kept busy for longer than the
host needs to queue the call: otherwise the device would wait between the call's kernels for Python, and that wait would be
measured. Samples of the contenders alternate (`timing.interleaved`), so all of them meet the same clocks and temperature.
"""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import torch

FLUSH_BYTES = 256 << 20  # several times the L2 cache of any GPU
HEAD_START_CYCLES = 1_500_000  # 0.8 ms at 1.9 GHz: a Python call of a few operators takes 0.1 to 0.3 ms to queue


class EventSampler:
    """Seconds of one call on the current CUDA stream."""

    def __init__(self) -> None:
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        torch.cuda._sleep(HEAD_START_CYCLES)
        begin.record()
        result = call()
        end.record()
        end.synchronize()
        del result  # frees its memory only now: no allocation of the next call waits for it
        return begin.elapsed_time(end) / 1e3


def host_sampler(call: Callable[[], object]) -> float:
    """Seconds of one call on the CPU: to see that a benchmark runs where there is no GPU."""
    begin = time.perf_counter()
    call()
    return max(time.perf_counter() - begin, 1e-9)


class ClockLog:
    """SM clock (MHz), power (W) and temperature (C) of the GPU, read by nvidia-smi while the `with` block lasts."""

    FIELDS = ("clocks.sm", "power.draw", "temperature.gpu")
    KEYS = ("sm_mhz", "watts", "celsius")

    def __init__(self, every_ms: int = 50) -> None:
        self.readings: list[tuple[float, tuple[float, ...]]] = []  # (time.monotonic(), one number a field)
        self.absent = ""  # why there are none
        self._command = ["nvidia-smi", f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits"]
        self._command += [f"--loop-ms={every_ms}"]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ClockLog:
        try:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError as error:
            self.absent = f"nvidia-smi does not run: {error.strerror}"
            return self
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.note(line)

    def note(self, line: str) -> None:
        """One line of nvidia-smi; a field that this GPU does not report leaves the line out."""
        with suppress(ValueError):
            self.readings.append((time.monotonic(), tuple(float(value) for value in line.split(","))))

    def between(self, begin: float, end: float) -> dict[str, object]:
        """Median and range of each field in a span of time.monotonic(), for JSON."""
        rows = [values for at, values in list(self.readings) if begin <= at <= end and len(values) == len(self.KEYS)]
        if not rows:
            return {"absent": self.absent or "nvidia-smi gave no reading in this time"}
        columns = dict(zip(self.KEYS, zip(*rows, strict=True), strict=True))
        return {
            key: {"median": statistics.median(values), "least": min(values), "most": max(values)}
            for key, values in columns.items()
        }
