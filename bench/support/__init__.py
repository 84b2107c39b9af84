"""What every Python benchmark shares: interleaved timing, a description of the machine, and the result file."""

from .machine import describe_machine
from .ranks import RankedCase, main_on_ranks
from .report import main, render, write
from .timing import Comparison, compare

__all__ = ["Comparison", "RankedCase", "compare", "describe_machine", "main", "main_on_ranks", "render", "write"]
