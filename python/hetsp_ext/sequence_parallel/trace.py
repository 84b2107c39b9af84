"""What a rank did when: named ranges for torch.profiler, and an optional list of events for a timeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class TraceEvent:
    """One range on one rank. `kind` is "attend", "wait" or "post"; times are time.perf_counter() seconds."""

    name: str
    kind: str
    phase: str
    begin: float
    end: float


@dataclass
class Trace:
    """Collects events if `keep`, and always the seconds spent waiting for peers."""

    keep: bool = False
    events: list[TraceEvent] = field(default_factory=list)
    waited: float = 0.0

    @contextmanager
    def range(self, name: str, kind: str, phase: str) -> Iterator[None]:
        begin = time.perf_counter()
        with torch.profiler.record_function(f"hetsp::{phase} {name}"):
            yield
        end = time.perf_counter()
        if kind == "wait":
            self.waited += end - begin
        if self.keep:
            self.events.append(TraceEvent(name, kind, phase, begin, end))
