"""What a rank did when: named ranges for torch.profiler, and an optional list of events for a timeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..runqueue import delay_seconds


@dataclass(frozen=True)
class TraceEvent:
    """One range on one rank. `kind` is "attend", "wait" or "post"; times are time.perf_counter() seconds.

    On a GPU a range begins when the host reaches it, and lasts as long as the device takes for what was launched in it.
    """

    name: str
    kind: str
    phase: str
    begin: float
    end: float
    delayed: float = 0.0  # seconds of it in which other threads had the cores (runqueue.py)

    @property
    def seconds(self) -> float:
        """What it took this rank, other threads' turns on the cores left out."""
        return max(self.end - self.begin - self.delayed, 0.0)


@dataclass
class Trace:
    """Collects events if `keep`, and always the seconds spent waiting for peers."""

    keep: bool = False
    device: str = "cpu"  # of the tensors that are attended to
    waited: float = 0.0
    _events: list[TraceEvent] = field(default_factory=list)
    _on_device: list[tuple[int, Any, Any]] = field(default_factory=list)  # (event, its CUDA events at both ends)

    @contextmanager
    def range(self, name: str, kind: str, phase: str) -> Iterator[None]:
        begin, delayed = time.perf_counter(), delay_seconds()
        first = self._mark()
        with torch.profiler.record_function(f"hetsp::{phase} {name}"):
            yield
        last = self._mark()
        end, delayed = time.perf_counter(), delay_seconds() - delayed
        if kind == "wait":
            self.waited += end - begin
        if self.keep:
            if first is not None:
                self._on_device.append((len(self._events), first, last))
            self._events.append(TraceEvent(name, kind, phase, begin, end, delayed))

    def _mark(self) -> Any:
        """A CUDA event of now in the current stream; None where the host's clock tells the time, or nobody asks."""
        if not self.keep or self.device != "cuda":
            return None
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    @property
    def events(self) -> list[TraceEvent]:
        """What was collected; waits for the device."""
        for index, first, last in self._on_device:
            last.synchronize()
            event = self._events[index]
            self._events[index] = replace(event, end=event.begin + first.elapsed_time(last) * 1e-3, delayed=0.0)
        self._on_device.clear()
        return self._events
