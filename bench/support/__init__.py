"""What every Python benchmark shares: interleaved timing, a description of the machine, and the result file."""

from .machine import describe_machine
from .report import main, render, write
from .timing import Comparison, compare

__all__ = ["Comparison", "compare", "describe_machine", "main", "render", "write"]
