"""Published tables of other systems beside what the simulator says; docs/simulator.md has the figures."""

from collections.abc import Callable
from pathlib import Path

from ...errors import InvalidArgument
from . import bytescale, flexsp, frontier, megatron, zeppelin
from .report import AutoRow, Cell, Report

__all__ = ["NAMES", "AutoRow", "Cell", "Report", "reproduce"]

_PAPERS = {
    "flexsp": flexsp.reproduce,
    "bytescale": bytescale.reproduce,
    "zeppelin": zeppelin.reproduce,
    "megatron-dcp": megatron.reproduce,
    "frontier": frontier.reproduce,
}
NAMES = tuple(_PAPERS)


def reproduce(
    name: str, data: Path | None = None, batches: int = 4, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Simulates what a paper published.

    Args:
        name: one of `NAMES`.
        data: folder with lengths_wikipedia.npz, lengths_github.npz and lengths_synthetic_cc.npz (array "lengths", tokens);
            what is absent is replaced by a stand-in, which the report's assumptions say.
        batches: steps to average over, at least 1.
        progress: called with a line before each long part.

    Raises:
        InvalidArgument: an unknown name, fewer batches than 1, or data that cannot be read.
    """
    if name not in _PAPERS:
        raise InvalidArgument(f"reproduce: {name!r} is unknown; allowed: {', '.join(NAMES)}")
    if batches < 1:
        raise InvalidArgument(f"reproduce: batches is {batches}, must be at least 1")
    return _PAPERS[name](data, batches, progress)
