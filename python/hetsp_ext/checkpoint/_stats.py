"""What checkpoints cost the training loop, save by save."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

SAVES_KEPT = 1000  # the newest; a run of a million steps must not grow by its statistics


@dataclass
class SaveStats:
    """One save; times in seconds.

    Attributes:
        blocked: in save() itself, without waiting for an earlier capture.
        stall: waited for this save's capture: in optimizer hooks, fences, and in the next save().
        capture, write, fsync: from the engine; capture and write count from the start of the save.
        ring_full: in which the copy waited for the disk.
        durable: until committed; None while it is not, or has failed.
        bytes: of this rank's file.
        error: why it failed, else None.
    """

    step: int
    blocked: float = 0.0
    stall: float = 0.0
    capture: float = 0.0
    write: float = 0.0
    fsync: float = 0.0
    ring_full: float = 0.0
    durable: float | None = None
    bytes: int = 0
    error: str | None = None

    def written(self, capture: Any) -> None:
        """Takes over what the engine has measured."""
        seconds = capture.seconds
        self.capture, self.write = seconds["capture"], seconds["write"]
        self.fsync, self.ring_full = seconds["fsync"], seconds["ring_full"]


@dataclass
class Stats:
    """All saves of a checkpointer; `saves` holds the newest of them."""

    started: int = 0
    skipped: int = 0  # by `every`, while an earlier capture ran
    saves: deque[SaveStats] = field(default_factory=lambda: deque(maxlen=SAVES_KEPT))

    @property
    def committed(self) -> list[SaveStats]:
        """Those of `saves` that are durable."""
        return [save for save in self.saves if save.durable is not None]

    @property
    def failed(self) -> list[SaveStats]:
        """Those of `saves` that have failed."""
        return [save for save in self.saves if save.error is not None]

    def __repr__(self) -> str:
        text = f"{self.started} saves, {len(self.committed)} committed, {len(self.failed)} failed, {self.skipped} skipped"
        if done := self.committed:

            def median(what: str) -> float:
                return statistics.median(getattr(save, what) for save in done)

            text += (
                f"; medians: {median('bytes') / 1e9:.3g} GB a rank, blocked {1e3 * median('blocked'):.2f} ms, "
                f"stall {1e3 * median('stall'):.2f} ms, durable after {median('durable'):.3f} s, "
                f"ring full {median('ring_full'):.3f} s"
            )
        return f"<{text}>"
