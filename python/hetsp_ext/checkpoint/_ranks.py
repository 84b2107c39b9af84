"""The ranks that save together, and what they tell each other outside of save()."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from ..errors import InvalidArgument
from ._items import Item
from ._layout import Agreement
from ._table import Place

Told = TypeVar("Told")


class Ranks:
    """The ranks that save together, over a Gloo group of their own: training's may be busy, or know no CPU tensors."""

    def __init__(self, process_group: Any, timeout: float) -> None:
        self.rank, self.size, self.group = 0, 1, None
        self._told = False
        self._global = [0]
        if not dist.is_initialized():
            if process_group is not None:
                raise InvalidArgument("process_group is given, but torch.distributed is not initialised")
            return
        ranks = dist.get_process_group_ranks(process_group or dist.group.WORLD)
        if dist.get_rank() not in ranks:
            raise InvalidArgument(f"rank {dist.get_rank()} is not in process_group, which has ranks {ranks}")
        self._global = ranks
        self.rank, self.size = ranks.index(dist.get_rank()), len(ranks)
        if self.size > 1:
            self.group = dist.new_group(
                ranks,
                timeout=timedelta(seconds=timeout),
                backend="gloo",
                use_local_synchronization=len(ranks) < dist.get_world_size(),
            )

    def gather(self, value: Told) -> list[Told]:
        """Every rank's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def gather_or_raise(self, value: Told) -> list[Told]:
        """As gather, for a value that a rank may fail to have: that rank is in `telling`, and its error is raised on all."""
        self._told = True
        told = self.gather((value, None))
        for rank, (_, error) in enumerate(told):
            if error is not None:
                raise InvalidArgument(f"rank {rank}: {error}")
        return [value for value, _ in told]

    @contextmanager
    def telling(self, needed: bool) -> Iterator[None]:
        """Where `needed`, what is raised before gather_or_raise is reached is told to the ranks that wait there."""
        self._told = False
        try:
            yield
        except InvalidArgument as error:
            if needed and self.size > 1 and not self._told:
                self.gather((None, str(error)))
            raise

    def from_first(self, function: Callable[[], Told]) -> Told:
        """What `function` gives on rank 0, or its error, on every rank."""
        value: Any = None
        error: Exception | None = None
        if self.rank == 0:
            try:
                value = function()
            except Exception as raised:
                error = raised
        value, error = self.gather((value, error))[0]
        if error is not None:
            raise error
        return value

    def place(self, agree_: Callable[[Sequence[Item]], Agreement] | None) -> Place:
        """This rank, for a table."""
        if self.size == 1:
            return Place(rank_of=lambda rank: 0)
        return Place(self.rank, self._rank_of, agree_)

    def _rank_of(self, rank: int) -> int:
        if rank not in self._global:
            raise InvalidArgument(f"a DTensor lies on rank {rank}, which is not among those that save: {self._global}")
        return self._global.index(rank)
