"""Checkpoints that are copied while training goes on, committed as a whole, and verified when read. See docs/checkpoint.md."""

from .lazy import LazyCheckpointer, Progress, SaveStats, Stats

__all__ = ["LazyCheckpointer", "Progress", "SaveStats", "Stats"]
