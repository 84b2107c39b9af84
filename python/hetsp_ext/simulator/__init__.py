"""Replays a plan on a described cluster: a timeline, and what every rank did in it. See docs/simulator.md."""

from .._native import core
from ._simulate import figures, lanes, simulate

Timeline = core.Timeline

__all__ = ["Timeline", "figures", "lanes", "simulate"]
