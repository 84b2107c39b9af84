"""Replays a plan on a described cluster: a timeline, and what every rank did in it. See docs/simulator.md."""

from .._native import core
from ._simulate import ROUTINGS, figures, lanes, simulate

Timeline = core.Timeline

__all__ = ["ROUTINGS", "Timeline", "figures", "lanes", "simulate"]
