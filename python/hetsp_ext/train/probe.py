"""Steps that a calibration measures: equal sequences, whole or shared by all ranks, over the range of a job's sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .model import BYTES

__all__ = ["Probe", "ProbeSource", "probes"]

FEWEST_TOKENS = 64  # of a sequence
LENGTHS_FACTOR = 4  # between neighbouring lengths


@dataclass(frozen=True)
class Probe:
    """`count` sequences of `length` tokens: on every one of the ranks, or shared by all of them."""

    shared: bool
    count: int
    length: int

    @property
    def name(self) -> str:
        return f"{'shared' if self.shared else 'whole'} {self.count} x {self.length}"

    @property
    def strategy(self) -> str:
        return "static" if self.shared else "data-parallel"

    def lengths(self, ranks: int) -> list[int]:
        return [self.length] * (self.count if self.shared else self.count * ranks)


def probes(ranks: int, max_length: int, tokens_per_rank: int) -> list[Probe]:
    """Short and long sequences, few and as many as a rank holds, so that no two counts grow in proportion.

    Steps that fill `tokens_per_rank` are what a job runs; the smaller ones tell fixed costs from those that grow.
    """
    lengths, length = [max_length], min(FEWEST_TOKENS, max_length)
    while length * 2 <= max_length:
        lengths.insert(-1, length)
        length *= LENGTHS_FACTOR
    chosen: dict[Probe, None] = {}
    for length in lengths:
        for shared in (False, True) if ranks > 1 else (False,):
            most = max(1, tokens_per_rank * (ranks if shared else 1) // length)
            for count in (1, max(1, most // 4), most):
                chosen[Probe(shared, count, length)] = None
    return list(chosen)


class ProbeSource:
    """One step of random bytes; a `SequenceSource`."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = list(lengths)

    def lengths(self, step: int) -> list[int]:
        return self._lengths

    def read(self, sequence: tuple[int, int], begin: int, end: int, fields: Sequence[str]) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(sequence[1])
        return {"tokens": torch.randint(BYTES, (self._lengths[sequence[1]],), generator=draw)[begin:end]}
